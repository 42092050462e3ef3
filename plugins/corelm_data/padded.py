"""Whole documents in padded rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, ComponentConfig, Problem, TokenStore
from corelm_data.best_fit import fitted
from corelm_data.shuffling import Shuffle
from corelm_data.streams import Ended, RankedPacker, RankedStream, joined

_WINDOW: Final = 1024
"""Units that best fit, and the ordering by length, look at together."""


class Padded(RankedPacker):
    """Whole documents in rows of their own, padded on the right.

    A batch is as wide as its longest row, at most ``time``. Documents of one group come in neighbouring rows of one
    batch, in their order; so a pair's rows are 2i and 2i + 1 where the batch is even and all are pairs. A batch that
    can't hold the next group whole is left short. Where documents have classes, ``extra["labels"]``, ``(batch,)``,
    holds them. The end-of-text token is added to documents of plain text (no ``learn``, no class) unless they end
    with it. Documents of no tokens are passed over.

    With ``best_fit`` a row holds several documents, told apart by ``documents``: among 1,024 documents at a time the
    longest goes first, each into the row with the least room that is enough, as in the packer ``best-fit``.

    With ``by_length`` documents of similar length come into one batch, which leaves little padding: of 1,024
    documents (or groups) at a time neighbours by length are batched, and the batches come in random order.

    Documents longer than ``time`` are cut at the side ``cut``; the stream counts them in ``truncated``.

    The stream looks once through the store for its groups. A group that is torn, has an empty member or is larger than
    ``batch`` is refused with ``UserError``, and under ``best_fit`` any group or class is.
    """

    revision: ClassVar[int] = 3
    truncates: ClassVar[bool] = True
    keeps_whole: ClassVar[bool] = True

    @classmethod
    def keeps_apart(cls, config: Any) -> bool:
        """Unless rows are filled."""
        return not config.best_fit

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Full rows are all of one length already."""
        if config.best_fit and config.by_length:
            yield Problem(
                ("by_length",),
                "best_fit fills rows, so that there are no lengths to go by",
                "Leave out one of `best_fit: true` and `by_length: true`.",
                "filled-rows-by-length",
            )

    class Config(ComponentConfig):
        """How rows are filled and long documents are cut."""

        best_fit: bool = Field(False, description="Put several documents into a row where they fit.")
        by_length: bool = Field(False, description="Batch documents of similar length together.")
        cut: Literal["right", "left"] = Field(
            "right", description="Which end of a document that is too long is dropped."
        )

    @classmethod
    def _stream_class(cls) -> type[RankedStream]:
        return _PaddedStream


class _PaddedStream(RankedStream):
    """Position: epoch, window of the epoch's order, rows of the window that are done."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.truncated = 0
        self._units = _units(self.store, self.batch, alone=self.config.best_fit)
        self._epoch = self._window = self._done = 0
        self._planned: list[list[list[int]]] | None = None

    def _advance(self, build: bool) -> Batch | bool | None:
        rows: list[list[int]] = []
        while (bundle := self._bundle()) is not None and len(rows) + len(bundle) <= self.batch:
            rows += bundle
            self._done += 1
        if not rows:
            return None
        documents = [[self._document(index) for index in row] for row in rows]
        self.truncated += sum(len(document) > self.time for row in documents for document in row)
        return self._build(documents) if build else True

    def _build(self, rows: list[list[Ended]]) -> Batch:
        spans = [[self._span(document) for document in row] for row in rows]
        width = max(sum(stop - start for start, stop in row) for row in spans)
        shape = (len(rows), width)
        ids, targets = np.full(shape, self.end_of_text), np.full(shape, IGNORE)
        numbers, valid = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        for row, documents in enumerate(rows):
            filled = 0
            for number, (document, (start, stop)) in enumerate(zip(documents, spans[row], strict=True)):
                here = slice(filled, filled + stop - start)
                ids[row, here] = document.ids(start, stop)
                targets[row, here] = document.targets(start, stop)
                numbers[row, here], valid[row, here] = number, True
                filled = here.stop
            numbers[row, filled:] = len(documents)
        labels = torch.tensor([row[0].tokens.label for row in rows])
        return Batch(
            ids=torch.from_numpy(ids),
            targets=torch.from_numpy(targets),
            documents=torch.from_numpy(numbers) if self.config.best_fit else None,
            valid=None if valid.all() else torch.from_numpy(valid),
            extra={"labels": labels} if bool((labels >= 0).any()) else {},
            names=[joined([document.tokens.name for document in row[:3]], len(row)) for row in rows],
        )

    def _span(self, document: Ended) -> tuple[int, int]:
        """Which of a document's tokens are kept."""
        if self.config.cut == "left":
            return max(0, len(document) - self.time), len(document)
        return 0, min(len(document), self.time)

    def _document(self, index: int) -> Ended:
        tokens = self.store[index]
        plain = tokens.learn is None and tokens.label < 0
        return Ended.of(tokens, self.end_of_text) if plain else Ended(tokens, None)

    def _lengths(self, indices: list[int]) -> dict[int, int]:
        """Tokens of documents, their ends included, by number; the tokens themselves are not read."""
        wanted = np.array(indices, dtype=np.int64)
        outline, nothing = self.store.outline(wanted), np.zeros_like(wanted)
        plain = np.array([marks is None for _, marks in self.store.read(wanted, nothing, nothing)], dtype=bool)
        ended = plain & (outline.labels < 0) & (outline.lengths > 0) & (outline.last != self.end_of_text)
        return dict(zip(indices, (outline.lengths + ended).tolist(), strict=True))

    def _bundle(self) -> list[list[int]] | None:
        """Rows that must stay together, next in turn: each a list of documents. None at the end."""
        width = _WINDOW if self.config.best_fit or self.config.by_length else 1
        while self._epoch != self.epochs:
            if self._planned is None:
                first = self._window * width
                order = Shuffle(len(self._units) - 1, self.seed, self._epoch)
                self._planned = self._plan(order.span(first, first + width).tolist())
            if self._done < len(self._planned):
                return self._planned[self._done]
            self._window, self._done, self._planned = self._window + 1, 0, None
            if self._window * width >= len(self._units) - 1:
                self._epoch, self._window = self._epoch + 1, 0
        return None

    def _plan(self, units: list[int]) -> list[list[list[int]]]:
        members = [list(range(self._units[unit], self._units[unit + 1])) for unit in units]
        if self.config.best_fit:
            return self._filled([index for (index,) in members])
        lengths = self._lengths([index for some in members for index in some])
        bundles = [[[index] for index in some if lengths[index]] for some in members]
        bundles = [bundle for bundle in bundles if bundle]
        return self._by_length(bundles) if self.config.by_length else bundles

    def _by_length(self, bundles: list[list[list[int]]]) -> list[list[list[int]]]:
        """The same bundles, those of one batch alike in length; which batch comes first is still up to chance."""
        lengths = self._lengths([index for bundle in bundles for row in bundle for index in row])
        longest = [max(lengths[index] for row in bundle for index in row) for bundle in bundles]
        batches: list[list[int]] = []
        room = 0
        for number in sorted(range(len(bundles)), key=longest.__getitem__):
            if len(bundles[number]) > room:
                batches.append([])
                room = self.batch
            batches[-1].append(number)
            room -= len(bundles[number])
        # Full batches first: what follows a short one would slip into it.
        full = sorted(batches[:-1], key=min)
        return [bundles[number] for batch in [*full, *batches[-1:]] for number in batch]

    def _filled(self, indices: list[int]) -> list[list[list[int]]]:
        """Rows of several documents by best fit."""
        lengths = {index: min(self.time, length) for index, length in self._lengths(indices).items()}
        filled = [index for index, length in lengths.items() if length]
        found: dict[int, list[int]] = {}
        # Rows in the order of the epoch, not longest first: neither batches nor epochs shall have a slope.
        rows = fitted(np.array([lengths[index] for index in filled], dtype=np.int64), self.time)
        for index, row in zip(filled, rows.tolist(), strict=True):
            found.setdefault(row, []).append(index)
        return [[row] for row in found.values()]

    def _position(self) -> dict[str, int]:
        position = {"epoch": self._epoch, "window": self._window, "done": self._done}
        return {**position, "truncated": self.truncated}

    def _go_to(self, position: dict[str, int]) -> None:
        self._epoch, self._window, self._done = position["epoch"], position["window"], position["done"]
        self.truncated = position["truncated"]
        self._planned = None


def _units(store: TokenStore, batch: int, *, alone: bool) -> Int[np.ndarray, " units+1"]:
    """Where each run of documents of one group starts, and the end."""

    def name(index: int) -> str:
        return str(store.names(np.array([index]))[0])

    starts, seen, last = [0], set(), -1
    for index, (length, group, label) in enumerate(_outlined(store)):
        if alone and (group >= 0 or label >= 0):
            raise _refused(
                name(index), "belongs to a group or has a class, and best_fit mixes rows", "Leave best_fit out."
            )
        if group >= 0 and length == 0:
            raise _refused(name(index), "has no tokens but belongs to a group", "Check the records.")
        if group >= 0 and group in seen and group != last:
            raise _refused(name(index), f"is apart from the rest of group {group}", "Store groups together.")
        if index and not (group >= 0 and group == last):
            starts.append(index)
        if index + 1 - starts[-1] > batch:
            raise _refused(
                name(index),
                f"is of a group of more than {batch} documents, the batch's rows",
                "Raise the batch size.",
            )
        seen.add(group)
        last = group
    return np.array([*starts, len(store)], dtype=np.int64)


def _outlined(store: TokenStore) -> Iterator[tuple[int, int, int]]:
    """Length, group and class of each document; the tokens themselves are not read."""
    for first in range(0, len(store), _WINDOW):
        outline = store.outline(np.arange(first, min(first + _WINDOW, len(store))))
        yield from zip(outline.lengths.tolist(), outline.groups.tolist(), outline.labels.tolist(), strict=True)


def _refused(name: str, why: str, remedy: str) -> UserError:
    return UserError(
        f"packer padded: document {name or 'without a name'} {why}", remedy=remedy, code="group-unpackable"
    )
