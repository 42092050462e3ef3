"""Kind ``packer``: tokenized documents to batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Bool, Int

from corelm.kinds.batch import BatchStream
from corelm.kinds.component import Component


@dataclass(frozen=True)
class Tokens:
    """One tokenized document, conversation or answer.

    Attributes:
        ids: ``(tokens,)``.
        learn: True where predicting this token is learnt, ``(tokens,)``; None: everywhere but the first.
        name: where it is from.
        group: documents with the same number ≥ 0 must stay side by side in one batch, in the order given
            (a chosen and a rejected answer); −1: on its own.
        label: class, where there is one.
    """

    ids: Int[np.ndarray, " tokens"]
    learn: Bool[np.ndarray, " tokens"] | None = None
    name: str = ""
    group: int = -1
    label: int = -1


class TokenStore(Protocol):
    """Tokenized documents on disk, read by number without loading the rest."""

    def __len__(self) -> int:
        """Number of documents."""
        ...

    def __getitem__(self, index: int) -> Tokens:
        """One document."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens in all documents together."""
        ...


class Packer(Component):
    """Makes batches out of documents.

    Built as ``Part(config)``.

    Contract of ``stream(store, batch, time, seed, end_of_text, epochs, rank, world)``:
        * No token is lost or doubled within an epoch, except what the part declares (``truncates``).
        * Targets are the next token of the same document, never of another; a target is there for each pair of
          neighbours inside a document where ``learn`` of the second is not False.
        * ``documents`` differ between neighbouring documents of a row wherever two share one.
        * The order is a permutation of the documents drawn from (seed, epoch); another epoch, another order.
        * ``rank`` of ``world`` streams partition the batches: stream r yields batches r, r + world, …
        * The stream's state is resumable to the batch; between rounds of ``world`` batches it is the same in all
          processes, and streams of another ``world`` can go on from it.
        * Documents with classes give ``extra["labels"]``, ``(batch,)``; a part that can't keep them refuses them.
        * Batches are the taker's own. Where there is no token at all, ``UserError`` or no batch.
    """

    kind: ClassVar[str] = "packer"
    truncates: ClassVar[bool] = False
    """Whether documents longer than ``time`` are cut."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def stream(
        self,
        store: Sequence[Tokens] | TokenStore,
        *,
        batch: int,
        time: int,
        seed: int,
        end_of_text: int,
        epochs: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> BatchStream:
        """Batches of ``batch`` rows of at most ``time`` tokens; ``epochs`` None: endless."""

    def batches(
        self,
        store: Sequence[Tokens] | TokenStore,
        *,
        batch: int,
        time: int,
        seed: int,
        end_of_text: int,
        epochs: int,
    ) -> int:
        """Number of batches that the stream of one process yields; a part may know it without making them."""
        stream = self.stream(store, batch=batch, time=time, seed=seed, end_of_text=end_of_text, epochs=epochs)
        return sum(1 for _ in stream)
