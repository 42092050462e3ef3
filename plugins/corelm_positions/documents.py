"""The mask between documents that share a row."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from corelm.kinds import Mask, MaskFacts


class DocumentsMask(Mask):
    """Tokens see their own document only."""

    elementary = True

    def allows(
        self, query: Int[Tensor, " time"], key: Int[Tensor, " keys"], facts: MaskFacts
    ) -> Bool[Tensor, "rows time keys"]:
        """Keys of the query's document; all where a row is one document."""
        if facts.documents is None:
            return torch.ones(1, len(query), len(key), dtype=torch.bool, device=query.device)
        return facts.documents[:, query, None] == facts.documents[:, None, key]

    def trivial(self, facts: MaskFacts) -> bool:
        """Whether every row is one document."""
        return facts.documents is None
