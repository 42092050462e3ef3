"""Queries that are scaled by their position."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Count, Position
from corelm.kinds.position import Hook


class QueryTemperature(Position):
    """Sharpens attention slowly with the position, as Llama 4 does (idea: Nakanishi, 2025, arXiv:2501.19399).

    The query at position p is multiplied by ``1 + scale · ln(1 + ⌊(p + 1) / floor⌋)``, in float32 or better.
    """

    hooks: ClassVar[frozenset[Hook]] = frozenset({"query"})

    class Config(ComponentConfig):
        """Options."""

        scale: float = Field(0.1, ge=0, description="How steeply queries grow.")
        floor: Count = Field(8192, gt=0, description="Tokens after which they grow by a step.")

    def prepare(
        self, positions: Int[Tensor, "batch time"], lengths: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch 1 time 1"]:
        """Each query's factor."""
        steps = ((positions + 1) // self.config.floor).to(torch.float64)
        return (1 + self.config.scale * torch.log1p(steps))[:, None, :, None]

    def scale_query(
        self, q: Float[Tensor, "batch heads time head_dim"], prepared: Float[Tensor, "batch 1 time 1"]
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """Multiply."""
        return (q * prepared.to(torch.promote_types(q.dtype, torch.float32))).to(q.dtype)

    def reference(
        self,
        q: Float[Tensor, "batch heads time head_dim"],
        positions: Int[Tensor, "batch time"],
        lengths: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """The definition, token by token."""
        scaled = q.clone()
        for row, t in torch.cartesian_prod(*map(torch.arange, positions.shape)).tolist():
            step = (int(positions[row, t]) + 1) // self.config.floor
            scaled[row, :, t] *= 1 + self.config.scale * math.log(1 + step)
        return scaled
