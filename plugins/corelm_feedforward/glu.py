"""Gated linear units."""

from __future__ import annotations

from typing import Any

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
        return self.down(self.activation.combine(self.gate(x), self.up(x)))
