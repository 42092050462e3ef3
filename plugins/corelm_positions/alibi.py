"""Attention with linear biases."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corelm.kinds import Position, PositionGeometry
from corelm.kinds.position import Hook


class ALiBi(Position):
    """Lowers scores in proportion to distance, each head at its own rate (Press et al., 2021, arXiv:2108.12409).

    Head h of H = 2ⁿ subtracts ``2^(−8h/H) · distance``, h = 1 … H. Other numbers of heads take the slopes of the
    power of two below, and then every second slope of the power of two above.
    """

    hooks: ClassVar[frozenset[Hook]] = frozenset({"score"})

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.slopes = slopes(geometry.heads)

    def scores(
        self, queries: Int[Tensor, "batch time"], keys: Int[Tensor, "batch keys"]
    ) -> Float[Tensor, "rows heads time keys"] | None:
        """Minus slope times distance."""
        if len(queries) > 1 and bool((queries == queries[:1]).all()) and bool((keys == keys[:1]).all()):
            queries, keys = queries[:1], keys[:1]
        distance = (queries[:, None, :, None] - keys[:, None, None, :]).abs()
        steep = torch.tensor(self.slopes, dtype=torch.float32, device=queries.device)
        return -steep[:, None, None] * distance


def slopes(heads: int) -> list[float]:
    """Slope of every head."""
    below = 2 ** int(math.log2(heads))
    above = [2.0 ** (-8 * h / (2 * below)) for h in range(1, 2 * below + 1)]
    return above[1::2] + above[0::2][: heads - below]
