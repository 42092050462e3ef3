"""Full rows of documents one after the other."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np
from pydantic import Field

from corelm.kinds import ComponentConfig, Count
from corelm_data.rows import Place, Rows, RowStream, Runs, Stretch
from corelm_data.shuffling import Shuffle
from corelm_data.streams import RankedPacker, RankedStream

_PLANNED: Final = 256
"""Rows that are planned at once where none are mixed."""


class Blocks(RankedPacker):
    """Documents one after the other, cut into full rows.

    Every document is followed by the end-of-text token (unless it ends with one), and the whole is cut into rows of
    ``time`` tokens, wherever that falls; a document goes on in the next row. The last token of a row has its target,
    too: the token that the next row begins with, if it is of the same document. ``documents`` counts from 0 in each
    row; no target crosses from one document to the next. Epochs follow each other without a gap; only the very last
    row of a finite stream can be short, and is padded on the right.

    Rows are mixed within a window of ``shuffle`` rows: without that, a batch would hold the pieces of one or two long
    documents, and its gradient would say little about the others. A window ends with its epoch, so that all of an
    epoch comes before the next.

    A document's ``learn`` is honoured; the end-of-text token that is added is learnt where ``learn`` is None.
    Documents of no tokens are passed over. Memory: one batch, and the lengths of one window's documents; the order
    of the epoch is computed as it is needed.

    Documents that belong together or have a class are refused with ``UserError`` when the stream comes to them.
    """

    revision: ClassVar[int] = 3

    class Config(ComponentConfig):
        """How far rows are mixed."""

        shuffle: Count = Field(
            1024, ge=1, description="Rows of a window that are mixed, rounded up to whole batches; 1: none are."
        )

    @classmethod
    def _stream_class(cls) -> type[RankedStream]:
        return _BlockStream


class _BlockStream(RowStream):
    """Windows of as many rows."""

    packer: ClassVar[str] = "blocks"

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._mixed = self.config.shuffle > 1
        self._rows = -(-(self.config.shuffle if self._mixed else _PLANNED) // self.batch) * self.batch

    def _plan(self, start: Place, window: int) -> tuple[Rows, Place]:
        stretch = self._stretch(start, start.offset + self._rows * self.time, over_epochs=True)
        # Places are counted in tokens from the beginning of the stretch's first document.
        ends = np.cumsum(stretch.lengths)
        begins = ends - stretch.lengths
        stop = min(start.offset + self._rows * self.time, self._end(stretch, start.offset))
        row_starts = np.arange(start.offset, stop, self.time)
        cuts = np.union1d(row_starts, begins[(begins > start.offset) & (begins < stop)])
        at = np.searchsorted(ends, cuts, side="right")
        stops = np.append(cuts[1:], stop)[: len(cuts)]
        runs = Runs(
            stretch.documents[at],
            cuts - begins[at],
            stops - begins[at],
            stretch.lengths[at],
            stretch.ended[at],
        )
        rows = Rows(runs, np.append(np.searchsorted(cuts, row_starts), len(cuts)))
        if not len(rows):
            return rows, start
        last = int(at[-1])
        in_the_last = stop - int(begins[last])
        behind = stretch.after(last)
        if in_the_last < stretch.lengths[last]:
            behind = Place(behind.epoch, behind.number - 1, in_the_last)
        if not self._mixed:
            return rows, behind
        full = int((rows.tokens == self.time).sum())
        order = Shuffle(full, self.seed, "rows", window).span(0, full)
        return rows.pick(np.append(order, np.arange(full, len(rows)))), behind

    def _end(self, stretch: Stretch, offset: int) -> int:
        """Where the row ends that holds the last token of the epoch, or that of all."""
        if not len(stretch.lengths):
            return offset
        left = int(stretch.lengths[stretch.epochs == stretch.epochs[0]].sum()) - offset
        return min(offset + -(-left // self.time) * self.time, int(stretch.lengths.sum()))
