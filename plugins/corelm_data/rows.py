"""Rows of documents: planned from lengths alone, many at a time, and read when a batch is made of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, TokenStore
from corelm_data.shuffling import Shuffle
from corelm_data.streams import RankedStream, joined

_AT_ONCE = 1 << 16
"""Documents whose lengths are asked for at once, at most."""


class Place(NamedTuple):
    """A place in the stream of documents: number in an epoch's order, and token of that document."""

    epoch: int
    number: int
    offset: int


@dataclass(frozen=True)
class Stretch:
    """Documents that follow each other from a place on; those of no tokens are left out.

    Attributes:
        epochs, numbers: the place of each, ``(documents,)``.
        documents: which they are, ``(documents,)``.
        lengths: their tokens, with the end-of-text token where one is added, ``(documents,)``.
        ended: whether one is, ``(documents,)``.
    """

    epochs: Int[np.ndarray, " documents"]
    numbers: Int[np.ndarray, " documents"]
    documents: Int[np.ndarray, " documents"]
    lengths: Int[np.ndarray, " documents"]
    ended: Bool[np.ndarray, " documents"]

    def after(self, number: int) -> Place:
        """The place behind the document of this number in the stretch."""
        return Place(int(self.epochs[number]), int(self.numbers[number]) + 1, 0)


class Runs(NamedTuple):
    """Runs of tokens: the i-th is the tokens ``starts[i] … stops[i] − 1`` of a document.

    Attributes:
        documents, starts, stops: ``(runs,)``.
        lengths, ended: of the document, as in ``Stretch``, ``(runs,)``.
    """

    documents: Int[np.ndarray, " runs"]
    starts: Int[np.ndarray, " runs"]
    stops: Int[np.ndarray, " runs"]
    lengths: Int[np.ndarray, " runs"]
    ended: Bool[np.ndarray, " runs"]

    def pick(self, runs: np.ndarray) -> Runs:
        """These runs, by number or by mark."""
        return Runs(*(array[runs] for array in self))


@dataclass(frozen=True)
class Rows:
    """Rows of runs.

    Attributes:
        runs: of all rows.
        edges: row r holds the runs ``edges[r] … edges[r + 1] − 1``, one after the other, ``(rows + 1,)``.
    """

    runs: Runs
    edges: Int[np.ndarray, " rows+1"]

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def tokens(self) -> Int[np.ndarray, " rows"]:
        """Tokens of each row."""
        before = np.concatenate([[0], np.cumsum(self.runs.stops - self.runs.starts)])
        return np.diff(before[self.edges])

    def pick(self, rows: Int[np.ndarray, " picked"]) -> Rows:
        """These rows, in this order."""
        first, counts = self.edges[rows], self.edges[rows + 1] - self.edges[rows]
        edges = np.concatenate([[0], np.cumsum(counts)])
        return Rows(self.runs.pick(np.repeat(first - edges[:-1], counts) + np.arange(edges[-1])), edges)

    @classmethod
    def together(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts."""
        runs = Runs(*map(np.concatenate, zip(*(part.runs for part in parts), strict=True)))
        counts = np.concatenate([np.diff(part.edges) for part in parts])
        return cls(runs, np.concatenate([[0], np.cumsum(counts)]))


class RowStream(RankedStream):
    """Plans a window of rows, mixes them, and makes batches of them.

    Position: where the window begins, its number, and rows taken of it. A window is planned from the documents'
    lengths; only the rows of this rank's batches are ever read. A row holds several documents, so none may belong to
    a group or have a class.

    Attributes:
        packer: whose stream it is, for messages.
    """

    packer: ClassVar[str]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._start = Place(0, 0, 0)
        self._window = self._taken = 0
        self._planned: tuple[Rows, Place] | None = None

    @abstractmethod
    def _plan(self, start: Place, window: int) -> tuple[Rows, Place]:
        """Rows of the window that begins at a place, and where the next one does; no rows at the end."""

    def _advance(self, build: bool) -> Batch | bool | None:
        parts: list[Rows] = []
        missing = self.batch
        while missing:
            if self._planned is None:
                self._planned = self._plan(self._start, self._window)
            rows, behind = self._planned
            if not len(rows):
                break
            stop = min(self._taken + missing, len(rows))
            parts.append(rows.pick(np.arange(self._taken, stop)))
            missing -= stop - self._taken
            self._taken = stop
            if stop == len(rows):
                self._start, self._window, self._taken, self._planned = behind, self._window + 1, 0, None
        if not parts:
            return None
        return batch_of(self.store, Rows.together(parts), self.time, self.end_of_text) if build else True

    def _stretch(self, start: Place, tokens: int, *, over_epochs: bool) -> Stretch:
        """Documents from a place on that have so many tokens together, or all that are left of the epoch.

        With ``over_epochs`` as many of the next as fill the epoch's last row.
        """
        epoch, number, found = start.epoch, start.number, 0
        # About as many documents as are needed; a few more cost little.
        at_once = min(_AT_ONCE, 16 + tokens * len(self.store) // self.tokens)
        parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0, dtype=np.int64),) * 4 + (np.zeros(0, dtype=bool),)]
        while found < tokens:
            if number == len(self.store):
                if found and over_epochs:
                    tokens = min(tokens, start.offset + -(-(found - start.offset) // self.time) * self.time)
                if found >= tokens or (found and not over_epochs):
                    break
                epoch, number = epoch + 1, 0
            if epoch == self.epochs:
                break
            documents = Shuffle(len(self.store), self.seed, epoch).span(number, number + at_once)
            numbers = np.arange(number, number + len(documents))
            lengths, ended = self._lengths(documents)
            parts.append((np.full_like(numbers, epoch), numbers, documents, lengths, ended))
            number, found = number + len(documents), found + int(lengths.sum())
        whole = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        filled = whole[3] > 0
        # Whatever is behind the document with the last of these tokens belongs to a later stretch.
        needed = np.searchsorted(np.cumsum(whole[3][filled]), tokens) + 1
        return Stretch(*(array[filled][:needed] for array in whole))

    def _lengths(
        self, documents: Int[np.ndarray, " documents"]
    ) -> tuple[Int[np.ndarray, " documents"], Bool[np.ndarray, " documents"]]:
        """Tokens of documents with the end that is added, and whether one is."""
        outline = self.store.outline(documents)
        whole = np.flatnonzero((outline.groups >= 0) | (outline.labels >= 0))
        if len(whole):
            what = "belongs to a group" if outline.groups[whole[0]] >= 0 else "has a class"
            name = self.store.names(documents[whole[:1]])[0] or "without a name"
            raise UserError(
                f"packer {self.packer}: document {name} {what}; {self.packer} puts several documents into a row",
                remedy="Use the packer padded, which gives each document a row.",
                code="packer-mixes-documents",
            )
        ended = (outline.lengths > 0) & (outline.last != self.end_of_text)
        return outline.lengths + ended, ended

    def _position(self) -> dict[str, int]:
        return {**self._start._asdict(), "window": self._window, "taken": self._taken}

    def _go_to(self, position: dict[str, int]) -> None:
        self._start = Place(position["epoch"], position["number"], position["offset"])
        self._window, self._taken = position["window"], position["taken"]
        self._planned = None


def batch_of(store: TokenStore, rows: Rows, time: int, end_of_text: int) -> Batch:
    """Read rows and lay them out, ``(rows, time)``; those that are short are padded on the right.

    ``documents`` counts from 0 in each row; the last token of a run that goes on elsewhere has its target, too.
    """
    runs, edges = rows.runs, rows.edges
    tokens, counts = runs.stops - runs.starts, np.diff(edges)
    (ids, learn), (following, learn_following) = _read(store, runs, end_of_text), _next(store, runs, end_of_text)
    ends = np.cumsum(tokens) - 1
    targets = _shifted(ids, ends, following)
    if learn is not None or learn_following is not None:
        learnt = _shifted(_all_if_none(learn, len(ids)), ends, _all_if_none(learn_following, len(ends)))
        targets[~learnt] = IGNORE
    numbers = np.repeat(np.arange(len(tokens)) - np.repeat(edges[:-1], counts), tokens)
    valid = np.arange(time) < rows.tokens[:, None]
    full = bool(valid.all())

    def laid(flat: np.ndarray, padding: Any) -> torch.Tensor:
        if full:
            return torch.from_numpy(flat.reshape(valid.shape))
        grid = np.empty(valid.shape, dtype=np.int64)
        grid[:] = padding
        grid[valid] = flat
        return torch.from_numpy(grid)

    return Batch(
        ids=laid(ids, end_of_text),
        targets=laid(targets, IGNORE),
        documents=laid(numbers, counts[:, None]),
        valid=None if full else torch.from_numpy(valid),
        names=_names(store, rows),
    )


def _read(
    store: TokenStore, runs: Runs, end_of_text: int
) -> tuple[Int[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"] | None]:
    """Tokens of all runs one after the other, added ends included, and whether each is learnt; None: all are.

    An added end is learnt only where all of its document is: elsewhere the document says what ends an answer.
    """
    stored = runs.lengths - runs.ended
    found = store.read(runs.documents, np.minimum(runs.starts, stored), np.minimum(runs.stops, stored))
    with_end = (runs.stops > stored).tolist()
    end = np.array([end_of_text])
    ids: list[np.ndarray] = []
    for (run, _), ends in zip(found, with_end, strict=True):
        ids.append(run)
        if ends:
            ids.append(end)
    flat = np.concatenate(ids, dtype=np.int64)
    if all(marks is None for _, marks in found):
        return flat, None
    learn: list[np.ndarray] = []
    for (run, marks), ends in zip(found, with_end, strict=True):
        learn.append(_all_if_none(marks, len(run)))
        if ends:
            learn.append(np.array([marks is None]))
    return flat, np.concatenate(learn)


def _next(
    store: TokenStore, runs: Runs, end_of_text: int
) -> tuple[Int[np.ndarray, " runs"], Bool[np.ndarray, " runs"] | None]:
    """The token behind each run in its document, IGNORE where the document ends; and whether it is learnt."""
    goes_on = runs.stops < runs.lengths
    found, marks = np.full(len(goes_on), IGNORE), np.ones(len(goes_on), dtype=bool)
    if not goes_on.any():
        return found, None
    open_ = runs.pick(goes_on)
    ids, learn = _read(store, open_._replace(starts=open_.stops, stops=open_.stops + 1), end_of_text)
    found[goes_on] = ids
    if learn is None:
        return found, None
    marks[goes_on] = learn
    return found, marks


def _all_if_none(marks: np.ndarray | None, count: int) -> np.ndarray:
    return np.ones(count, dtype=bool) if marks is None else marks


def _shifted(flat: np.ndarray, ends: np.ndarray, following: np.ndarray) -> np.ndarray:
    """For each token what comes next: the next of its run, or what follows the run."""
    shifted = np.empty_like(flat)
    shifted[:-1] = flat[1:]
    shifted[ends] = following
    return shifted


def _names(store: TokenStore, rows: Rows) -> list[str]:
    """The documents of each row, the first three by name."""
    documents = rows.runs.documents.tolist()
    different = [list(dict.fromkeys(documents[start:stop])) for start, stop in pairwise(rows.edges.tolist())]
    names = iter(store.names(np.array([index for row in different for index in row[:3]], dtype=np.int64)))
    return [joined(list(islice(names, min(3, len(row)))), len(row)) for row in different]
