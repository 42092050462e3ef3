"""Attention with linear biases."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Position, PositionGeometry
from corelm.kinds.position import Hook


class ALiBi(Position):
    """Lowers scores in proportion to distance, each head at its own rate (Press et al., 2021, arXiv:2108.12409).

    Head h of H = 2ⁿ subtracts ``2^(−8h/H) · distance``, h = 1 … H. Other numbers of heads take the slopes of the
    power of two below, and then every second slope of the power of two above.

    ``rounded`` and ``scale`` are for models that were trained so: Falcon-RW rounds slopes, positions and their
    products, and divides scores and biases alike by √head_dim. Rounded products of a slope and a position depend on
    more than the distance.
    """

    hooks: ClassVar[frozenset[Hook]] = frozenset({"score"})

    class Config(ComponentConfig):
        """Options."""

        scale: float = Field(1.0, gt=0, description="Factor of the biases (1/√head_dim in Falcon-RW).")
        rounded: Literal["bfloat16"] | None = Field(
            None, description="Type that slopes, positions and their products are rounded to; none by default."
        )

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.slopes = slopes(geometry.heads)
        self.scale = config.scale
        self.relative = config.rounded is None

    def scores(
        self, queries: Int[Tensor, "batch time"], keys: Int[Tensor, "batch keys"]
    ) -> Float[Tensor, "rows heads time keys"] | None:
        """Minus slope times distance."""
        steep = torch.tensor(self.slopes, dtype=torch.float32, device=queries.device)[:, None, None]
        if self.config.rounded is None:
            return steep * self.scale * -(queries[:, None, :, None] - keys[:, None, None, :]).abs()
        descent = [
            (steep.bfloat16() * at.bfloat16()).float() for at in (queries[:, None, :, None], keys[:, None, None])
        ]
        return -(descent[0] - descent[1]).abs() * self.scale


def slopes(heads: int) -> list[float]:
    """Slope of every head."""
    below = 2 ** int(math.log2(heads))
    above = [2.0 ** (-8 * h / (2 * below)) for h in range(1, 2 * below + 1)]
    return above[1::2] + above[0::2][: heads - below]
