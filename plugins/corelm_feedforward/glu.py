"""Gated linear units."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import (
    Activation,
    ComponentConfig,
    Count,
    FeedForward,
    LayerContext,
    LayerStep,
    Linear,
    Spec,
    parameter_count,
    together,
    use,
)


def rounded_width(dim: int) -> int:
    """8/3 · dim, which gives three matrices the parameters of an ungated 4 · dim, up to a multiple of 64."""
    return -(-8 * dim // (3 * 64)) * 64


class GatedConfig(ComponentConfig):
    """Sizes of a gated linear unit."""

    width: Count | None = Field(
        None, gt=0, description="Hidden features; default: 8/3 of dim, up to a multiple of 64."
    )
    bias: bool = Field(False, description="Whether the three maps have biases.")


class GatedLinearUnit(FeedForward):
    """Gates one projection by the activation of another (Shazeer, 2020, arXiv:2002.05202).

    ``y = down(activation(gate(x)) · up(x))``.
    """

    class Config(GatedConfig):
        """Options."""

        activation: Spec[Activation] = Field(use("silu"), description="The function that opens the gate.")

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The width that follows from ``dim``."""
        return config.model_copy(update={"width": config.width or rounded_width(context.dim)})

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """``3 · dim · width``, and biases."""
        width = config.width or rounded_width(layer.dim)
        maps = (3 * layer.dim + 2 * config.bias) * width + config.bias * layer.dim
        return maps + parameter_count(getattr(config, "activation", None))

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        width = config.width or rounded_width(layer.dim)
        self.gate = Linear(layer.dim, width, bias=config.bias)
        self.up = Linear(layer.dim, width, bias=config.bias)
        self.down = Linear(width, layer.dim, bias=config.bias, residual=True)
        self.activation = self.build_activation()

    def build_activation(self) -> Activation:
        """The function that opens the gate."""
        return self.config.activation.build()

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Transform every token."""
        return self.down(self.activation.combine(*together(x, self.gate, self.up)))

    def reference(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """The definition, a token and a hidden feature at a time."""
        y = torch.zeros_like(x)
        for row, t in torch.cartesian_prod(*map(torch.arange, x.shape[:2])).tolist():
            for unit in range(self.up.outputs):
                gate, up = (_feature(part, unit, x[row, t]) for part in (self.gate, self.up))
                y[row, t] += self.down.weight[:, unit] * self.activation.combine(gate, up)
        return y if self.down.bias is None else y + self.down.bias


def _feature(part: Linear, unit: int, x: Float[Tensor, " inputs"]) -> Float[Tensor, ""]:
    """One output of a map."""
    product = part.weight[unit].dot(x)
    return product if part.bias is None else product + part.bias[unit]
