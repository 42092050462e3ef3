"""The two-layer perceptron."""

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
    use,
)


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

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """``2 · dim · width``, and biases."""
        width = config.width or 4 * layer.dim
        return (2 * layer.dim + config.bias) * width + config.bias * layer.dim + parameter_count(config.activation)

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        width = config.width or 4 * layer.dim
        self.up = Linear(layer.dim, width, bias=config.bias)
        self.activation: Activation = config.activation.build()
        self.down = Linear(width, layer.dim, bias=config.bias, residual=True)

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Transform every token."""
        return self.down(self.activation(self.up(x)))

    def reference(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """The definition, a token and a hidden feature at a time."""
        y = torch.zeros_like(x)
        for row, t in torch.cartesian_prod(*map(torch.arange, x.shape[:2])).tolist():
            for unit, weight in enumerate(self.up.weight):
                hidden = weight.dot(x[row, t]) + (0.0 if self.up.bias is None else self.up.bias[unit])
                y[row, t] += self.down.weight[:, unit] * self.activation(hidden)
        return y if self.down.bias is None else y + self.down.bias
