"""Kind ``embedding``: token ids to vectors."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from corelm.kinds.carriers import ModelContext
from corelm.kinds.component import Component


class Embedding(Component, nn.Module):
    """Maps token ids to vectors, each token on its own.

    Built as ``Part(config, model: ModelContext)``.

    Contract:
        * Equal ids give equal vectors wherever they stand.
        * ``table`` is the parameter ``(vocab_size, width)`` that a tied head multiplies with, before any scale.
        * ``reference(ids)``, where there is one, in evaluation.
        * Its cost is that of both ways, for equally many tokens.
    """

    kind: ClassVar[str] = "embedding"

    def __init__(self, config: Any, model: ModelContext) -> None:
        super().__init__()
        self.config = config
        self.model = model

    @property
    @abstractmethod
    def table(self) -> nn.Parameter:
        """The table that heads may tie to."""

    @abstractmethod
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        """Look the ids up."""

    def unproject(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Map hidden states to the width of the table, where heads read them; the identity where they agree."""
        return hidden
