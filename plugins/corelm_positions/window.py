"""The sliding window."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Count, Mask, MaskFacts


class WindowMask(Mask):
    """Every token sees the last ``size`` tokens, itself included (Beltagy et al., 2020, arXiv:2004.05150)."""

    causal = True

    class Config(ComponentConfig):
        """Options."""

        size: Count = Field(gt=0, description="How many tokens are seen, the current one included.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.window = config.size

    def allows(
        self, query: Int[Tensor, " time"], key: Int[Tensor, " keys"], facts: MaskFacts
    ) -> Bool[Tensor, "rows time keys"]:
        """Keys after ``query − size``, up to the query."""
        distance = query[:, None] - key
        return ((distance >= 0) & (distance < self.config.size))[None]

    def trivial(self, facts: MaskFacts) -> bool:
        """Whether no row is longer than the window."""
        return facts.total is not None and facts.total <= self.config.size
