"""Attention within chunks."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Count, Mask, MaskFacts


class ChunkMask(Mask):
    """Every token sees what came before it in its chunk of ``size`` tokens (Liu et al., 2018, arXiv:1801.10198).

    Chunks are counted from the first real token of each document and end with it. What padding inside a document
    moves out of reach, ``size`` tokens away or more, is not seen, as in a window.
    """

    causal = True

    class Config(ComponentConfig):
        """Options."""

        size: Count = Field(gt=0, description="Tokens of a chunk.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.window = config.size

    def allows(
        self, query: Int[Tensor, " time"], key: Int[Tensor, " keys"], facts: MaskFacts
    ) -> Bool[Tensor, "rows time keys"]:
        """Keys of the query's chunk, up to the query."""
        size = self.config.size
        distance = query[:, None] - key
        near = ((distance >= 0) & (distance < size))[None]
        asked, told = (
            (index[None] if facts.positions is None else facts.positions[:, index]) // size for index in (query, key)
        )
        near = near & (asked[:, :, None] == told[:, None])
        if facts.documents is None:
            return near
        return near & (facts.documents[:, query, None] == facts.documents[:, None, key])

    def trivial(self, facts: MaskFacts) -> bool:
        """Whether all rows are one document of at most one chunk."""
        return facts.documents is None and facts.total is not None and facts.total <= self.config.size
