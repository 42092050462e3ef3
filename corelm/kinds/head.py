"""Kind ``head``: hidden states to logits, classes, a value or a reward."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds.carriers import ModelContext
from corelm.kinds.component import Component
from corelm.kinds.embedding import Embedding


class Head(Component, nn.Module):
    """Reads the final hidden states, each token on its own.

    Built as ``Part(config, model: ModelContext, embedding: Embedding)``; the embedding is there to be tied to
    and must not be registered as a sub-module.

    Contract:
        * Output ``(…, outputs)`` for hidden states ``(…, dim)``; any leading axes, so that callers may
          pick or chunk tokens first.
        * ``reads`` says what the outputs mean: ``vocabulary`` logits of the next token, ``classes`` logits
          of the whole sequence (read at its last real token), ``scalar`` a value per token (a reward when
          read at the last real token).
        * ``reference(hidden)``, where there is one.
    """

    kind: ClassVar[str] = "head"
    reads: ClassVar[Literal["vocabulary", "classes", "scalar"]]

    def __init__(self, config: Any, model: ModelContext, embedding: Embedding) -> None:
        super().__init__()
        self.config = config
        self.model = model

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Size of the last axis of the output."""

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... outputs"]:
        """Compute the outputs, in the dtype that the matrix product gives."""
