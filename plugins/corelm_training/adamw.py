"""AdamW: adaptive moments with decoupled weight decay."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.optim.adamw import adamw as fused_adamw

from corelm.kinds import ComponentConfig, Optimizer, ParameterInfo, Role
from corelm_training.moments import copied, distinct


def _bounded(betas: tuple[float, float]) -> tuple[float, float]:
    if betas[0] ** 2 > betas[1]:
        raise PydanticCustomError(
            "betas_unbounded",
            "with betas {first} and {second} steps can grow without bound; raise the second to {least} at least",
            {"first": betas[0], "second": betas[1], "least": f"{betas[0] ** 2:.4g}"},
        )
    return betas


Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Beta, Beta], Field(strict=False), AfterValidator(_bounded)]
"""Decay of both means. A step is at most a constant times the rate only where β₁² ≤ β₂ (by Cauchy–Schwarz)."""


class AdamW(Optimizer):
    """AdamW: moments of the gradient set each coordinate's step, weight decay acts apart from them.

    For gradient g at the parameter's own step t, with learning rate η and decay λ::

        p ← (1 − ηλ) p
        m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²
        p ← p − η · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)

    The step is counted per parameter, so that one without a gradient for a while is not taken to be older than it
    is. Kingma & Ba, 2014, arXiv:1412.6980; Loshchilov & Hutter, 2017, arXiv:1711.05101.
    """

    class Config(ComponentConfig):
        """Rates and decay."""

        learning_rate: float = Field(1e-3, ge=0, description="Step size that the schedule scales.")
        betas: Betas = Field((0.9, 0.95), description="Decay of the running means of the gradient and of its square.")
        eps: float = Field(1e-8, ge=1e-20, description="Added to the root of the second moment.")
        weight_decay: float = Field(0.1, ge=0, description="Decoupled decay, multiplied by the learning rate.")
        decayed: list[Role] = Field(
            ["matrix", "embedding", "head"], description="Roles of the parameters that decay."
        )
        kernel: Literal["fused", "open"] = Field(
            "fused",
            description="Torch's fused kernel (one pass over memory), or the formula as it is written here.",
        )

    def __init__(self, config: Config, parameters: list[tuple[str, nn.Parameter, ParameterInfo]]) -> None:
        super().__init__(config, distinct(parameters))
        self.moments: dict[str, dict[str, Any]] = {}

    @property
    def learning_rate(self) -> float:
        """The config's learning rate."""
        rate: float = self.config.learning_rate
        return rate

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Update every parameter that has a gradient."""
        update = self._fused if self.config.kernel == "fused" else self._open
        for decays in (True, False):
            group = [
                (name, parameter)
                for name, parameter, info in self.parameters
                if parameter.grad is not None and (info.role in self.config.decayed) is decays
            ]
            if group:
                update(group, self.learning_rate * scale, self.config.weight_decay if decays else 0.0)

    def _open(self, group: list[tuple[str, nn.Parameter]], rate: float, decay: float) -> None:
        (beta1, beta2), eps = self.config.betas, self.config.eps
        parameters, gradients, means, squares, steps = self._gather(group)
        torch._foreach_mul_(parameters, 1 - rate * decay)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [math.sqrt(1 - beta2**step) for step in steps])
        torch._foreach_add_(roots, eps)
        torch._foreach_addcdiv_(parameters, means, roots, [-rate / (1 - beta1**step) for step in steps])

    def _fused(self, group: list[tuple[str, nn.Parameter]], rate: float, decay: float) -> None:
        (beta1, beta2), eps = self.config.betas, self.config.eps
        parameters, gradients, means, squares, steps = self._gather(group)
        # The kernel counts the step itself before it uses it.
        counters = [torch.tensor(float(step - 1), device=p.device) for step, p in zip(steps, parameters, strict=True)]
        fused_adamw(
            parameters, gradients, means, squares, [], counters, fused=True, amsgrad=False, maximize=False,
            beta1=beta1, beta2=beta2, lr=rate, weight_decay=decay, eps=eps,
        )  # fmt: skip

    def _gather(
        self, group: list[tuple[str, nn.Parameter]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[int]]:
        """Lists of parameters, gradients, both moments, and the number of the step now taken."""
        states = []
        for name, parameter in group:
            state = self.moments.setdefault(
                name, {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
            )
            state["step"] += 1
            states.append(state)
        return (
            [parameter for _, parameter in group],
            [parameter.grad for _, parameter in group if parameter.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [state["step"] for state in states],
        )

    @classmethod
    def state_bytes(cls, config: Any, parameter: Tensor, info: ParameterInfo) -> int:
        """Both moments, in the parameter's type."""
        return 2 * parameter.nbytes

    def state_dict(self) -> dict[str, Any]:
        """Step, mean and mean square by parameter name."""
        return {"moments": {name: dict(state) for name, state in self.moments.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave, copied."""
        self.moments = copied(state["moments"], self.parameters)
