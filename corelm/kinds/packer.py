"""Kind ``packer``: tokenized documents to batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

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


@dataclass(frozen=True)
class Outline:
    """What a packer must know of documents before it reads them; every array is ``(documents,)``, int64.

    Attributes:
        lengths: tokens of each.
        last: its last token; −1 where it has none.
        groups, labels: as in ``Tokens``.
    """

    lengths: Int[np.ndarray, " documents"]
    last: Int[np.ndarray, " documents"]
    groups: Int[np.ndarray, " documents"]
    labels: Int[np.ndarray, " documents"]


class TokenStore(Protocol):
    """Tokenized documents on disk, any part of which is read without the rest.

    Documents are named by number, ``0 … len − 1``. The methods that take many at a time are what makes packing quick:
    none of them loops over tokens, and none reads what was not asked for.
    """

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

    def outline(self, indices: Int[np.ndarray, " documents"]) -> Outline:
        """Lengths, last tokens, groups and classes of these documents."""
        ...

    def read(
        self,
        documents: Int[np.ndarray, " runs"],
        starts: Int[np.ndarray, " runs"],
        stops: Int[np.ndarray, " runs"],
    ) -> list[tuple[Int[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"] | None]]:
        """Tokens ``start … stop − 1`` of each of these documents, in any integer type, and their ``learn``.

        What comes back may be views of the store: it is not to be written to.
        """
        ...

    def names(self, indices: Int[np.ndarray, " documents"]) -> list[str]:
        """Where these documents are from."""
        ...


class _Listed:
    """A sequence of documents as a store."""

    def __init__(self, documents: Sequence[Tokens]) -> None:
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> Tokens:
        return self._documents[index]

    @property
    def tokens(self) -> int:
        return sum(len(self[index].ids) for index in range(len(self)))

    def outline(self, indices: Int[np.ndarray, " documents"]) -> Outline:
        found = [self[index] for index in indices.tolist()]
        rows = [(len(t.ids), int(t.ids[-1]) if len(t.ids) else -1, t.group, t.label) for t in found]
        return Outline(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)

    def read(
        self,
        documents: Int[np.ndarray, " runs"],
        starts: Int[np.ndarray, " runs"],
        stops: Int[np.ndarray, " runs"],
    ) -> list[tuple[Int[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"] | None]]:
        runs = zip(documents.tolist(), starts.tolist(), stops.tolist(), strict=True)
        found = ((self[index], slice(start, stop)) for index, start, stop in runs)
        return [(t.ids[span], None if t.learn is None else t.learn[span]) for t, span in found]

    def names(self, indices: Int[np.ndarray, " documents"]) -> list[str]:
        return [self[index].name for index in indices.tolist()]


def token_store(documents: Sequence[Tokens] | TokenStore) -> TokenStore:
    """Documents as a store, whatever they are held in."""
    return cast(TokenStore, documents) if hasattr(documents, "outline") else _Listed(documents)


class Packer(Component):
    """Makes batches out of documents.

    Built as ``Part(config)``.

    Contract of ``stream(store, batch, time, seed, end_of_text, epochs, rank, world)``:
        * No token is lost or doubled within an epoch, except what the part declares (``truncates``); all of an epoch
          comes before the next, up to a batch that holds the end of one and the beginning of the other.
        * Targets are the next token of the same document, never of another; a target is there for each pair of
          neighbours inside a document where ``learn`` of the second is not False.
        * ``documents`` differ between neighbouring documents of a row wherever two share one.
        * The order is a permutation of the documents drawn from (seed, epoch); another epoch, another order.
        * ``rank`` of ``world`` streams partition the batches: stream r yields batches r, r + world, …
        * The stream's state is resumable to the batch; between rounds of ``world`` batches it is the same in all
          processes, and streams of another ``world`` can go on from it: the stream is ``elastic``.
        * A part that ``keeps_whole`` cuts no document that fits into a row, its end-of-text token included.
        * A part that ``keeps_apart`` gives documents with classes as ``extra["labels"]``, ``(batch,)``, and those of one
          group in neighbouring rows; others refuse both.
        * Batches are the taker's own. Where there is no token at all, ``UserError`` or no batch.
    """

    kind: ClassVar[str] = "packer"
    truncates: ClassVar[bool] = False
    """Whether of documents longer than ``time`` the rest is dropped."""
    keeps_whole: ClassVar[bool] = False
    """Whether a document of at most ``time`` tokens stands in one row."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def keeps_apart(cls, config: Any) -> bool:
        """Whether every document has rows of its own, so that it may have a class or belong to a group."""
        return False

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
        """Number of batches that the stream of one process yields; one with a ``count()`` knows it without making them."""
        stream: Any = self.stream(store, batch=batch, time=time, seed=seed, end_of_text=end_of_text, epochs=epochs)
        return stream.count() if hasattr(stream, "count") else sum(1 for _ in stream)
