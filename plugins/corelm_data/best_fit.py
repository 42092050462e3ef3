"""Rows filled with whole documents."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Int
from pydantic import Field

from corelm.kinds import ComponentConfig, Count
from corelm_data.rows import Place, Rows, RowStream, Runs
from corelm_data.shuffling import Shuffle
from corelm_data.streams import RankedPacker, RankedStream


class BestFit(RankedPacker):
    """Whole documents, as many as fit into each row.

    Best-fit packing (Ding et al., 2024, arXiv:2404.10830). Every document is followed by the end-of-text token (unless
    it ends with one). One that is longer than ``time`` is cut into full rows and a rest. Rests, and documents that are
    short enough, are never cut: among the documents of a window the longest goes first, each into the row with the
    least room that is enough ("best fit decreasing", at most 11/9 of the fewest rows: Johnson et al., 1974,
    doi:10.1137/0203025). What room is left is padding, on the right: little where a window has many documents. No
    token is dropped, and the last token of a full row has its target in the next piece of its document.

    A window ends with its epoch. Its rows come in random order, and the documents of a row in the order of the epoch.

    A document's ``learn`` is honoured; the end-of-text token that is added is learnt where ``learn`` is None.
    Documents of no tokens are passed over. Memory: one batch, and the lengths of one window's documents.

    Documents that belong together or have a class are refused with ``UserError`` when the stream comes to them.
    """

    keeps_whole: ClassVar[bool] = True

    class Config(ComponentConfig):
        """How many documents are looked at together."""

        window: Count = Field(
            1024, ge=1, description="Rows' worth of documents that are fitted together; more leave less padding."
        )

    @classmethod
    def _stream_class(cls) -> type[RankedStream]:
        return _BestFitStream


class _BestFitStream(RowStream):
    """Windows of whole documents."""

    packer: ClassVar[str] = "best-fit"

    def _plan(self, start: Place, window: int) -> tuple[Rows, Place]:
        stretch = self._stretch(start, self.config.window * self.time, over_epochs=False)
        full, rest = np.divmod(stretch.lengths, self.time)
        # Pieces of each document in turn: its full rows, then what is left of it.
        pieces = full + (rest > 0)
        document = np.repeat(np.arange(len(pieces)), pieces)
        piece = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        starts = piece * self.time
        stops = np.minimum(starts + self.time, stretch.lengths[document])
        row = fitted(stops - starts, self.time)
        order = np.argsort(row, kind="stable")
        at = document[order]
        edges = np.concatenate([[0], np.cumsum(np.bincount(row))]).astype(np.int64)
        runs = Runs(stretch.documents[at], starts[order], stops[order], stretch.lengths[at], stretch.ended[at])
        rows = Rows(runs, edges)
        if not len(rows):
            return rows, start
        mixed = Shuffle(len(rows), self.seed, "rows", window).span(0, len(rows))
        return rows.pick(mixed), stretch.after(len(pieces) - 1)


def fitted(lengths: Int[np.ndarray, " pieces"], room: int) -> Int[np.ndarray, " pieces"]:
    """The row of each piece by best fit decreasing; a row has ``room`` for so many tokens, no piece is longer."""
    found = np.empty(len(lengths), dtype=np.int64)
    known = lengths.tolist()
    with_room: list[list[int]] = [[] for _ in range(room + 1)]
    rows = 0
    rooms = 0  # bit r: some row has room for r tokens and no more
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = known[piece]
        enough = rooms >> length
        if enough:
            left = length + (enough & -enough).bit_length() - 1
            row = with_room[left].pop()
            if not with_room[left]:
                rooms ^= 1 << left
        else:
            left, row, rows = room, rows, rows + 1
        found[piece] = row
        if left > length:
            with_room[left - length].append(row)
            rooms |= 1 << (left - length)
    return found
