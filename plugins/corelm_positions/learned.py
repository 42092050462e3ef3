"""Learned absolute positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Count, ParameterInfo, Position, PositionGeometry, Problem, declare
from corelm.kinds.position import Hook


class LearnedPosition(Position):
    """Adds a learned vector per position to the token embeddings (Gehring et al., 2017, arXiv:1705.03122).

    Position p reads row ``p + offset`` of a table with ``size + offset`` rows.

    Raises:
        UserError: a position lies beyond the table.
    """

    hooks: ClassVar[frozenset[Hook]] = frozenset({"embedding"})

    class Config(ComponentConfig):
        """Options."""

        size: Count | None = Field(None, gt=0, description="Positions in the table; default: the model's context.")
        offset: int = Field(0, ge=0, description="Unused rows before that of position 0 (2 in OPT).")

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The table must hold the model's context."""
        if config.size is not None and config.size < context.context:
            yield Problem(
                ("size",),
                f"{config.size} learned positions are fewer than the context of {context.context} tokens",
                "Raise size, or lower the model's context.",
                "context-longer-than-positions",
            )

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The size that follows from the context."""
        return config.model_copy(update={"size": config.size or context.context})

    @classmethod
    def parameter_count(cls, config: Any, geometry: PositionGeometry) -> int:
        """``(size + offset) · dim``."""
        return ((config.size or geometry.context) + int(config.offset)) * geometry.dim

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.limit = config.size or geometry.context
        self.table = declare(self, "table", (self.limit + config.offset, geometry.dim), ParameterInfo("embedding"))

    def embed(
        self, x: Float[Tensor, "batch time dim"], positions: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time dim"]:
        """Add each position's vector."""
        # A compiled graph can't look at values; there, the lookup itself refuses rows that don't exist.
        known = not torch.compiler.is_compiling()
        if known and positions.numel() and int(positions.max()) >= self.limit:
            raise UserError(
                f"position {int(positions.max())} is beyond the {self.limit} learned positions",
                remedy="Shorten the text, or train with a larger context.",
                code="position-beyond-table",
            )
        return x + F.embedding(positions + self.config.offset, self.table).to(x.dtype)
