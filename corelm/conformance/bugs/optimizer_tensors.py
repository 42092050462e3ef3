"""Optimizers that are wrong with some tensors, or after some steps."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.bugs.optimizer import Moments, Orthogonal
from corelm.conformance.planted import plant, reference
from corelm.kinds.parameters import ParameterInfo


@reference
class TwoWays(Moments):
    """Adaptive moments, whose mean is moved by one operation or by two."""

    class Config(Moments.Config):
        """Options."""

        kernel: Literal["one", "two"] = Field("one", description="How the direction is computed.")

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        """Direction."""
        return super().move(mean, denominator) if self.config.kernel == "one" else mean * (1 / denominator)


@plant("kernels_agree", "one kernel puts eps inside of the root")
class AnotherEps(TwoWays):
    """√(v + eps)."""

    def denominator(self, square: Tensor, correction: float) -> Tensor:
        if self.config.kernel == "one":
            return super().denominator(square, correction)
        return (square / correction + self.config.eps + 1e-6).sqrt()


@plant("state_goes_by_name", "moments in the order of the list, by shape")
class ByPosition(Moments):
    """Another order gives them to others."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        kept = list(self.state.values())
        for name, p, _ in self.parameters:
            fitting = next((n for n, moments in enumerate(kept) if moments["mean"].shape == p.shape), None)
            if fitting is not None:
                self.state[name] = kept.pop(fitting)


@plant("shapes_do_not_matter", "a stack of matrices is one tall matrix")
class StackIsOneMatrix(Orthogonal):
    """Experts share their singular values."""

    def direction(self, gradient: Tensor) -> Tensor:
        return super().direction(gradient.flatten(0, -2)).view_as(gradient)


@plant("shapes_do_not_matter", "view() on what may be stored transposed")
class FlattensWithView(Moments):
    """Needs contiguous memory."""

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        return (mean.view(-1) / denominator.view(-1)).view_as(mean)


@plant("moves_in_place", "p.data is another tensor afterwards")
class ReplacesData(Moments):
    """Views are cut off."""

    def step(self, scale: float) -> None:
        super().step(scale)
        for _, p, _ in self.parameters:
            p.data = p.data.clone()


@plant("float32_follows", "moments in bfloat16")
class HalfMoments(Moments):
    """Eight digits of two."""

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        return super().move(mean.bfloat16().to(mean.dtype) if mean.dtype == torch.float32 else mean, denominator)


@plant("state_is_as_large_as_declared", "one moment is forgotten in the count")
class CountsOneMoment(Moments):
    """Half of it."""

    @classmethod
    def state_bytes(cls, config: Any, parameter: Tensor, info: ParameterInfo) -> int | None:
        return parameter.nbytes


@plant("path_of_adamw", "the correction ends after four steps")
class CorrectsForAWhile(Moments):
    """As if the means had settled."""

    def denominator(self, square: Tensor, correction: float) -> Tensor:
        return super().denominator(square, 1.0 if correction > 1 - self.config.betas[1] ** 4.5 else correction)


@plant("path_of_adamw", "the larger of old and new second moment (AMSGrad) under AdamW's name")
class NeverForgets(Moments):
    """Large gradients are remembered for ever."""

    def denominator(self, square: Tensor, correction: float) -> Tensor:
        most: dict[int, Tensor] = self.__dict__.setdefault("most", {})
        kept = most.setdefault(id(square), square.clone())
        kept.copy_(torch.maximum(kept, square))
        return super().denominator(kept, correction)


@plant("momentum_is_a_sum", "momentum begins over at every step")
class NoMemory(Orthogonal):
    """The gradient alone."""

    def add(self, total: Tensor, gradient: Tensor) -> None:
        total.copy_(gradient)


@plant("momentum_is_a_sum", "directions are summed, not gradients")
class SumsDirections(Orthogonal):
    """Orthogonalised too early."""

    def add(self, total: Tensor, gradient: Tensor) -> None:
        super().add(total, self.direction(gradient) if gradient.dim() == 2 else gradient)


@plant("size_as_named", "columns for rows")
class WideForTall(Orthogonal):
    """√max(1, columns / rows)."""

    def size(self, rows: int, columns: int) -> float:
        return 0.2 * min(rows, columns) ** 0.5 if self.config.scale == "rms" else super().size(columns, rows)


@reference
class AsExactAsTheProcessor(Moments):
    """Directions in bfloat16 where that is fast, or asked for."""

    class Config(Moments.Config):
        """Options."""

        precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Of the direction.")

    def low(self) -> bool:
        """Whether bfloat16 is taken."""
        found: bool = torch.cpu.get_capabilities().get("avx512_bf16", False)
        return found if self.config.precision == "auto" else self.config.precision == "bf16"

    def move(self, mean: Tensor, denominator: Tensor) -> Tensor:
        """Direction."""
        exact = super().move(mean, denominator)
        return exact.bfloat16().to(exact.dtype) if self.low() and exact.dtype == torch.float32 else exact


@plant("auto_precision_is_the_hardwares", "only what is asked for by name is taken")
class NeverAutomatic(AsExactAsTheProcessor):
    """auto is float32."""

    def low(self) -> bool:
        return bool(self.config.precision == "bf16")
