"""Kind ``sampler``: one filter of logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from corelm.kinds.component import Component


class Sampler(Component):
    """Changes the logits of the next token; a recipe gives an ordered list.

    Built as ``Part(config)``. After the last filter one token is drawn from ``softmax(logits)``.

    Contract, for logits ``(batch, vocab)`` in float32 or float64 and the same shape out:
        * Row i of the result depends on row i of the inputs only.
        * Filters set logits to −inf and leave the others as they are; at least one stays finite.
        * −inf stays −inf. NaN raises ``UserError``.
        * Pure: no random numbers, no memory.
    """

    kind: ClassVar[str] = "sampler"

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Filter; ``ids`` are the tokens so far."""
