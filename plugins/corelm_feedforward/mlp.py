"""The two-layer perceptron."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import Activation, ComponentConfig, Count, FeedForward, LayerContext, LayerStep, Linear, Spec, use


class MLP(FeedForward):
    """Two linear maps with an activation between them (Vaswani et al., 2017, arXiv:1706.03762).

    ``y = down(activation(up(x)))``.
    """

    class Config(ComponentConfig):
        """Options."""

        activation: Spec[Activation] = Field(use("gelu"), description="The function between the maps.")
        width: Count | None = Field(None, gt=0, description="Hidden features; default: 4 times dim.")
        bias: bool = Field(True, description="Whether both maps have biases.")

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The width that follows from ``dim``."""
        return config.model_copy(update={"width": config.width or 4 * context.dim})

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        width = config.width or 4 * layer.dim
        self.up = Linear(layer.dim, width, bias=config.bias)
        self.activation: Activation = config.activation.build()
        self.down = Linear(width, layer.dim, bias=config.bias, residual=True)

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Transform every token."""
        return self.down(self.activation(self.up(x)))
