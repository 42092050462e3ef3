"""Full rows of documents one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, BatchStream, ComponentConfig, Count, Packer, Tokens, TokenStore
from corelm_data.streams import Ended, RankedStream, joined, permutation


class Blocks(Packer):
    """Documents one after the other, cut into full rows.

    Every document is followed by the end-of-text token (unless it ends with one), and the whole is cut into rows of
    ``time`` tokens, wherever that falls; a document goes on in the next row. The last token of a row has its target,
    too: the token that the next row begins with, if it is of the same document. ``documents`` counts from 0 in each
    row; no target crosses from one document to the next. Epochs follow each other without a gap; only the very last
    row of a finite stream can be short, and is padded on the right.

    Rows are mixed within a window of ``shuffle`` rows: without that, a batch would hold the pieces of one or two long
    documents, and its gradient would say little about the others.

    A document's ``learn`` is honoured; the end-of-text token that is added is learnt where ``learn`` is None.
    Documents of no tokens are passed over. Memory: one document, one window, 8 bytes per document for the order.
    """

    class Config(ComponentConfig):
        """How far rows are mixed."""

        shuffle: Count = Field(
            1024, ge=1, description="Rows of a window that are mixed, rounded up to whole batches; 1: none are."
        )

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
        """Batches of ``batch`` rows of ``time`` tokens.

        Raises:
            UserError: no tokens at all; on reading, documents that belong together or have a class.
        """
        rows = -(-self.config.shuffle // batch) * batch if self.config.shuffle > 1 else 1
        return _BlockStream(
            end_of_text, rows, store, batch=batch, time=time, seed=seed, epochs=epochs, rank=rank, world=world
        )


@dataclass
class _Row:
    """One row before it joins a batch."""

    ids: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    names: str
    length: int


class _BlockStream(RankedStream):
    """Position: where the window begins (epoch, number in its order, token of that document), and rows taken of it."""

    def __init__(self, end_of_text: int, window: int, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._end_of_text, self._window = end_of_text, window
        self._epoch = self._number = self._offset = 0
        self._opened: Ended | None = None
        self._start = (0, 0, 0)
        self._windows = self._taken = 0
        self._rows: list[_Row] | None = None

    def _advance(self, build: bool) -> Batch | bool | None:
        rows = self._next_rows()
        if not rows:
            return None
        return self._batch(rows) if build else True

    def _next_rows(self) -> list[_Row]:
        """Rows of the next batch; a window that is used up is followed by another."""
        rows: list[_Row] = []
        while len(rows) < self.batch:
            window = self._opened_window()
            if not window:
                break
            taken = window[self._taken : self._taken + self.batch - len(rows)]
            rows += taken
            self._taken += len(taken)
            if self._taken == len(window):
                self._start = (self._epoch, self._number, self._offset)
                self._windows, self._taken, self._rows = self._windows + 1, 0, None
        return rows

    def _opened_window(self) -> list[_Row]:
        """The current window, its full rows mixed by (seed, window)."""
        if self._rows is None:
            rows: list[_Row] = []
            while len(rows) < self._window and (row := self._row()) is not None:
                rows.append(row)
            full = [row for row in rows if row.length == self.time]
            order = permutation(len(full), self.seed, self._windows)
            self._rows = [full[index] for index in order] + rows[len(full) :]
        return self._rows

    def _row(self) -> _Row | None:
        """The next row of the documents one after the other; None at the end."""
        row = _Row(
            np.full(self.time, self._end_of_text),
            np.full(self.time, IGNORE),
            np.zeros(self.time, dtype=np.int64),
            "",
            0,
        )
        held: list[str] = []
        while row.length < self.time and (document := self._document()) is not None:
            start = self._offset
            stop = min(len(document), start + self.time - row.length)
            here = slice(row.length, row.length + stop - start)
            row.ids[here] = document.ids(start, stop)
            row.targets[here] = document.targets(start, stop)
            row.documents[here] = len(held)
            held.append(document.tokens.name)
            row.length = here.stop
            self._move(stop - start, document)
        row.documents[row.length :] = len(held)
        row.names = joined(held)
        return row if held else None

    def _batch(self, rows: list[_Row]) -> Batch:
        lengths = np.array([row.length for row in rows])
        valid = np.arange(self.time) < lengths[:, None]
        return Batch(
            ids=torch.from_numpy(np.stack([row.ids for row in rows])),
            targets=torch.from_numpy(np.stack([row.targets for row in rows])),
            documents=torch.from_numpy(np.stack([row.documents for row in rows])),
            valid=None if valid.all() else torch.from_numpy(valid),
            names=[row.names for row in rows],
        )

    def _document(self) -> Ended | None:
        """The document at the current position; None at the end."""
        while self._opened is None or len(self._opened) == 0:
            if self._opened is not None:
                self._to_next()
            if self._number == len(self.store):
                self._epoch, self._number = self._epoch + 1, 0
            if self._epoch == self.epochs:
                return None
            index = int(self.order(self._epoch, len(self.store))[self._number])
            self._opened = Ended.of(_alone(self.store[index]), self._end_of_text)
        return self._opened

    def _move(self, step: int, document: Ended) -> None:
        self._offset += step
        if self._offset == len(document):
            self._to_next()

    def _to_next(self) -> None:
        self._number, self._offset, self._opened = self._number + 1, 0, None

    def _position(self) -> dict[str, int]:
        epoch, number, offset = self._start
        return {"epoch": epoch, "number": number, "offset": offset, "window": self._windows, "taken": self._taken}

    def _go_to(self, position: dict[str, int]) -> None:
        self._start = (position["epoch"], position["number"], position["offset"])
        self._epoch, self._number, self._offset = self._start
        self._windows, self._taken = position["window"], position["taken"]
        self._opened = self._rows = None


def _alone(document: Tokens) -> Tokens:
    if document.group >= 0 or document.label >= 0:
        what = "belongs to a group" if document.group >= 0 else "has a class"
        raise UserError(
            f"packer blocks: document {document.name or 'without a name'} {what}; blocks cuts documents anywhere",
            remedy="Use the packer padded, which keeps documents whole.",
            code="packer-cuts-documents",
        )
    return document
