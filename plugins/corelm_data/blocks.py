"""Full rows of documents one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch, BatchStream, ComponentConfig, Packer, Tokens, TokenStore
from corelm_data.streams import Ended, RankedStream, joined


class Blocks(Packer):
    """Documents one after the other, cut into full rows.

    Every document is followed by the end-of-text token (unless it ends with one), and the whole is cut into rows of
    ``time`` tokens, wherever that falls; a document goes on in the next row. The last token of a row has its target,
    too: the token that the next row begins with, if it is of the same document. ``documents`` counts from 0 in each
    row; no target crosses from one document to the next. Epochs follow each other without a gap; only the very last
    row of a finite stream can be short, and is padded on the right.

    A document's ``learn`` is honoured; the end-of-text token that is added is learnt where ``learn`` is None.
    Documents of no tokens are passed over. Memory: one document, one batch, 8 bytes per document for the order.
    """

    class Config(ComponentConfig):
        """There is nothing to choose."""

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
        return _BlockStream(
            end_of_text, store, batch=batch, time=time, seed=seed, epochs=epochs, rank=rank, world=world
        )


class _BlockStream(RankedStream):
    """Position: epoch, number in the epoch's order, token of that document."""

    def __init__(self, end_of_text: int, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._end_of_text = end_of_text
        self._epoch = self._number = self._offset = 0
        self._opened: Ended | None = None

    def _advance(self, build: bool) -> Batch | bool | None:
        return self._build() if build else (self._skip(self.batch * self.time) or None)

    def _skip(self, tokens: int) -> bool:
        """Go past so many tokens; False at the end of the stream."""
        moved = False
        while tokens and (document := self._document()) is not None:
            step = min(tokens, len(document) - self._offset)
            self._move(step, document)
            tokens, moved = tokens - step, True
        return moved

    def _build(self) -> Batch | None:
        shape = (self.batch, self.time)
        ids, targets = np.full(shape, self._end_of_text), np.full(shape, IGNORE)
        documents, valid = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        names: list[str] = []
        for row in range(self.batch):
            filled, held = 0, list[str]()
            while filled < self.time and (document := self._document()) is not None:
                start = self._offset
                stop = min(len(document), start + self.time - filled)
                here = slice(filled, filled + stop - start)
                ids[row, here] = document.ids(start, stop)
                targets[row, here] = document.targets(start, stop)
                documents[row, here] = len(held)
                valid[row, here] = True
                held.append(document.tokens.name)
                filled = here.stop
                self._move(stop - start, document)
            if not held:
                break
            documents[row, filled:] = len(held)
            names.append(joined(held))
        if not names:
            return None
        rows = len(names)
        return Batch(
            ids=torch.from_numpy(ids[:rows]),
            targets=torch.from_numpy(targets[:rows]),
            documents=torch.from_numpy(documents[:rows]),
            valid=None if valid[:rows].all() else torch.from_numpy(valid[:rows]),
            names=names,
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
        return {"epoch": self._epoch, "number": self._number, "offset": self._offset}

    def _go_to(self, position: dict[str, int]) -> None:
        self._epoch, self._number, self._offset = position["epoch"], position["number"], position["offset"]
        self._opened = None


def _alone(document: Tokens) -> Tokens:
    if document.group >= 0 or document.label >= 0:
        what = "belongs to a group" if document.group >= 0 else "has a class"
        raise UserError(
            f"packer blocks: document {document.name or 'without a name'} {what}; blocks cuts documents anywhere",
            remedy="Use the packer padded, which keeps documents whole.",
            code="packer-cuts-documents",
        )
    return document
