"""Optimizers that are wrong in one way."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.kinds.component import ComponentConfig
from corelm.kinds.optimizer import Optimizer
from corelm.kinds.parameters import ParameterInfo

First = Annotated[float, Field(ge=0, le=0.9)]
Second = Annotated[float, Field(ge=0.81, lt=1)]
"""With β₁² ≤ β₂ steps are bounded."""


@reference
class Moments(Optimizer):
    """Adaptive moments with decoupled decay, one tensor after the other."""

    law = "adamw"

    class Config(ComponentConfig):
        """Options."""

        learning_rate: float = Field(1e-3, ge=0, description="Rate.")
        eps: float = Field(1e-8, gt=0, description="Under the fraction.")
        weight_decay: float = Field(0.1, ge=0, description="Decay.")
        betas: tuple[First, Second] = Field((0.9, 0.95), strict=False, description="Means.")

    def __init__(self, config: Any, parameters: Any) -> None:
        super().__init__(config, parameters)
        self.refuse_doubles()
        self.state: dict[str, dict[str, Any]] = {}

    def refuse_doubles(self) -> None:
        """One name per tensor, one tensor per name."""
        seen: dict[int, str] = {}
        for name, parameter, _ in self.parameters:
            if id(parameter) in seen or name in seen.values():
                raise ValueError(f"{name} is there already: {', '.join(seen.values())}")
            seen[id(parameter)] = name

    @property
    def learning_rate(self) -> float:
        """Rate."""
        return float(self.config.learning_rate)

    def decays(self, info: ParameterInfo) -> bool:
        """Which roles shrink."""
        return info.role in ("matrix", "embedding", "head")

    def gradient(self, p: Tensor, info: ParameterInfo) -> Tensor | None:
        """What drives the moments."""
        return p.grad

    def shrink(self, p: Tensor, info: ParameterInfo, rate: float) -> None:
        """Decay."""
        if self.decays(info):
            p.mul_(1 - rate * self.config.weight_decay)

    def count(self, state: dict[str, Any]) -> int:
        """Steps of this parameter."""
        return int(state["step"])

    def denominator(self, square: Tensor, correction: float) -> Tensor:
        """What the mean is divided by."""
        return (square / correction).sqrt() + self.config.eps

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Update."""
        rate = self.learning_rate * scale
        beta1, beta2 = self.config.betas
        for name, p, info in self.parameters:
            g = self.gradient(p, info)
            if g is None:
                continue
            state = self.state.setdefault(
                name, {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
            )
            state["step"] += 1
            t = self.count(state)
            state["mean"].mul_(beta1).add_(g, alpha=1 - beta1)
            state["square"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
            self.shrink(p, info, rate)
            p.sub_(
                self.move(state["mean"] / (1 - beta1**t), self.denominator(state["square"], 1 - beta2**t)), alpha=rate
            )

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        """Direction."""
        return mean / denominator

    @classmethod
    def state_bytes(cls, config: Any, parameter: Tensor, info: ParameterInfo) -> int | None:
        """Both moments."""
        return 2 * parameter.nbytes

    def state_dict(self) -> dict[str, Any]:
        """Moments by name."""
        return {"moments": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy."""
        self.state = {
            name: {k: v.clone() if isinstance(v, Tensor) else v for k, v in moments.items()}
            for name, moments in state["moments"].items()
        }


@plant("none_means_untouched", "None is taken for zero")
class NoneIsZero(Moments):
    """Decays what has no gradient."""

    def gradient(self, p: Tensor, info: ParameterInfo) -> Tensor | None:
        return torch.zeros_like(p) if p.grad is None else p.grad


@plant("decay_is_decoupled", "decay without the learning rate")
class DecayWithoutRate(Moments):
    """Ten times too strong."""

    def shrink(self, p: Tensor, info: ParameterInfo, rate: float) -> None:
        if self.decays(info) and rate:
            p.mul_(1 - self.config.weight_decay)


@plant("decay_is_decoupled", "norms and biases decay as well")
class DecaysEverything(Moments):
    """All roles."""

    def decays(self, info: ParameterInfo) -> bool:
        return True


@plant("decay_ignores_gradients", "decay is added to the gradient (keras#19051)")
class CoupledDecay(Moments):
    """L2."""

    def gradient(self, p: Tensor, info: ParameterInfo) -> Tensor | None:
        return None if p.grad is None else p.grad + self.config.weight_decay * p * self.decays(info)

    def shrink(self, p: Tensor, info: ParameterInfo, rate: float) -> None:
        pass


@plant("finds_the_bottom", "the sign: it climbs")
class Ascends(Moments):
    """The sign."""

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        return -mean / denominator


@plant("finds_the_bottom", "each move is divided by the number of moves so far")
class StepsDieOut(Moments):
    """Stops short."""

    moves = 0

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        self.moves += 1
        return super().move(mean, denominator) / self.moves


@plant("odd_in_gradients", "the mean's size without its sign, a little")
class Asymmetric(Moments):
    """|m|."""

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        return (mean + 0.1 * mean.abs()) / denominator


@plant("parameters_are_separate", "one counter for all parameters")
class SharedCounter(Moments):
    """The largest step."""

    def count(self, state: dict[str, Any]) -> int:
        return max(int(other["step"]) for other in self.state.values())


@plant("state_resumes", "the step isn't saved")
class StepNotSaved(Moments):
    """Bias correction begins over."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for moments in self.state.values():
            moments["step"] = 0


@plant("state_resumes", "moments are the loaded dict's own")
class AliasedMoments(Moments):
    """Shared."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = {name: dict(moments) for name, moments in state["moments"].items()}


@plant("zero_rate_is_still", "decay follows the base rate, not the schedule")
class DecayOutsideTheSchedule(Moments):
    """Drifts."""

    def shrink(self, p: Tensor, info: ParameterInfo, rate: float) -> None:
        if self.decays(info):
            p.mul_(1 - self.learning_rate * max(self.config.weight_decay, 0.01))


@plant("forgets_gradients", "only matrices forget theirs")
class GradientsPileUp(Moments):
    """Biases add up those of all steps."""

    def zero_grad(self) -> None:
        for _, parameter, info in self.parameters:
            if info.role == "matrix":
                parameter.grad = None


@plant("doubles_are_refused", "takes a tied tensor twice")
class TakesDoubles(Moments):
    """Looks away."""

    def refuse_doubles(self) -> None:
        pass


@plant("doubles_are_refused", "takes two tensors of one name")
class OneNameForTwo(Moments):
    """They share their moments."""

    def refuse_doubles(self) -> None:
        if len({id(parameter) for _, parameter, _ in self.parameters}) < len(self.parameters):
            raise ValueError(f"a tensor is listed twice: {[name for name, _, _ in self.parameters]}")


@plant("first_step_of_adamw", "eps inside the root (pytorch#22628)")
class EpsInsideTheRoot(Moments):
    """√(v + eps)."""

    def denominator(self, square: Tensor, correction: float) -> Tensor:
        return (square / correction + self.config.eps).sqrt()


@plant("first_step_of_adamw", "no correction of the second moment")
class NoBiasCorrection(Moments):
    """Large first steps."""

    def denominator(self, square: Tensor, correction: float) -> Tensor:
        return super().denominator(square, 1.0)


@reference
class Orthogonal(Optimizer):
    """Matrices move along the orthogonal factor of their gradient, as near as five steps come."""

    law = "muon"

    class Config(ComponentConfig):
        """Options."""

        learning_rate: float = Field(0.02, ge=0, description="Rate.")
        momentum: float = Field(0.9, ge=0, lt=1, description="Decay of the sum of gradients.")
        scale: Literal["rms", "spectral"] = Field("spectral", description="Size of a step.")

    def __init__(self, config: Any, parameters: Any) -> None:
        super().__init__(config, parameters)
        self.sums: dict[str, Tensor] = {}
        if min(len({id(p) for _, p, _ in parameters}), len({name for name, _, _ in parameters})) < len(parameters):
            raise ValueError(f"{parameters[0][0]} is listed twice")

    @property
    def learning_rate(self) -> float:
        """Rate."""
        return float(self.config.learning_rate)

    iterations = 5

    def direction(self, gradient: Tensor) -> Tensor:
        """Of Newton–Schulz."""
        tall = gradient.shape[-2] > gradient.shape[-1]
        x = gradient.mT if tall else gradient
        x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-300)
        for _ in range(self.iterations):
            gram = x @ x.mT
            x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
        return x.mT if tall else x

    def size(self, rows: int, columns: int) -> float:
        """Of a step."""
        return 0.2 * max(rows, columns) ** 0.5 if self.config.scale == "rms" else max(1.0, rows / columns) ** 0.5

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Matrices by direction, the rest by gradient."""
        for name, p, info in self.parameters:
            if p.grad is None:
                continue
            total = self.sums.setdefault(name, torch.zeros_like(p))
            self.add(total, p.grad)
            matrix = p.dim() - info.stacked == 2
            move = self.direction(total) * self.size(*p.shape[-2:]) if matrix else total
            p.sub_(move, alpha=self.learning_rate * scale)

    def add(self, total: Tensor, gradient: Tensor) -> None:
        """Momentum."""
        total.mul_(self.config.momentum).add_(gradient)

    def state_dict(self) -> dict[str, Any]:
        """Sums by name."""
        return {"sums": dict(self.sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy."""
        self.sums = {name: total.clone() for name, total in state["sums"].items()}


@plant("orthogonalises", "two iterations are not enough")
class TooFewIterations(Orthogonal):
    """Newton–Schulz, stopped early."""

    def direction(self, gradient: Tensor) -> Tensor:
        x = gradient / gradient.norm()
        for _ in range(1):
            x = 1.5 * x - 0.5 * x @ x.T @ x
        return x


@plant("direction_of_muon", "four steps in place of five, which nobody sees in a loss")
class FourIterations(Orthogonal):
    """Singular values from 0.3 on."""

    iterations = 4


@plant("turns_with_the_gradient", "signs of single entries")
class ElementwiseSign(Orthogonal):
    """No rotation."""

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()
