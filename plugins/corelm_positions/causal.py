"""The causal mask."""

from __future__ import annotations

from jaxtyping import Bool, Int
from torch import Tensor

from corelm.kinds import Mask, MaskFacts


class CausalMask(Mask):
    """Every token sees itself and what came before it."""

    elementary = True
    causal = True

    def allows(
        self, query: Int[Tensor, " time"], key: Int[Tensor, " keys"], facts: MaskFacts
    ) -> Bool[Tensor, "rows time keys"]:
        """Keys up to the query."""
        return (key <= query[:, None])[None]

    def trivial(self, facts: MaskFacts) -> bool:
        """It is the causal mask itself."""
        return True
