"""Packers that lose or cut documents in rarer cases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from corelm.conformance.bugs.packer import Rows
from corelm.conformance.planted import plant
from corelm.kinds.batch import BatchStream
from corelm.kinds.component import ComponentConfig
from corelm.kinds.packer import Tokens, TokenStore, token_store


@plant("every_document_comes_once", "an order by a hash, modulo the number of documents")
class RepeatsADocument(Rows):
    """Right where the number is a power of two; elsewhere what is too large falls on others."""

    def shuffle(self, units: list[list[Tokens]], seed: int, epoch: int) -> None:
        size = 1 << (len(units) - 1).bit_length()
        before = list(units)
        units[:] = [before[(place * 5 + seed + epoch) % size % len(before)] for place in range(len(before))]


@plant("what_fits_stays_whole", "the end of a row is filled with the beginning of the next document")
class CutsToFill(Rows):
    """No room is left, at the price of documents that would have fitted."""

    def rows(self, documents: list[Tokens], time: int, end_of_text: int) -> list[list[Any]]:
        half = [
            Tokens(part, None if d.learn is None else d.learn[at], d.name, d.group, d.label)
            for d in documents
            for at in (slice(0, len(d.ids) // 2), slice(len(d.ids) // 2, None))
            if len(part := d.ids[at])
        ]
        return super().rows(half, time, end_of_text)


@plant("stores_are_read_alike", "targets are counted in the type of the store")
class SmallArithmetic(Rows):
    """What is ignored becomes a token, where tokens are unsigned."""

    def stream(self, store: Sequence[Tokens] | TokenStore, **how: Any) -> BatchStream:
        if not isinstance(store, list):
            known, everything = token_store(store), np.arange(len(store))
            lengths = known.outline(everything).lengths
            read = zip(known.read(everything, 0 * lengths, lengths), known.names(everything), strict=True)
            store = [Tokens(ids, learn, name) for (ids, learn), name in read]
        return super().stream(store, **how)

    def targets(self, document: Tokens, start: int, stop: int) -> list[int]:
        found = np.array(super().targets(document, start, stop))
        return [int(target) for target in found.astype(document.ids.dtype)]


@plant("what_fits_stays_whole", "it cuts none, and doesn't say so")
class WholeInSilence(Rows):
    """Recipes that ask for whole documents would pass it over."""

    keeps_whole = False


@plant("reading_is_linear", "every row reads its document, all of it")
class ReadsForEveryRow(Rows):
    """The square of a book."""

    def stream(self, store: Sequence[Tokens] | TokenStore, **how: Any) -> BatchStream:
        for index in range(len(store)):
            for _ in range(0, len(store[index].ids), how["time"]):
                store[index]
        return super().stream(store, **how)


class Mixed(Rows):
    """Rows of a window are mixed."""

    class Config(ComponentConfig):
        """How far."""

        shuffle: int = Field(1, ge=1, description="Rows of a window.")

    def window(self, batch: int) -> int:
        """Rows of a window, in whole batches."""
        return -(-int(self.config.shuffle) // batch) * batch

    def bundles(self, rows: list[list[Any]], batch: int) -> list[list[Any]]:
        size = self.window(batch)
        windows = [rows[start : start + size] for start in range(0, len(rows), size)]
        for number, window in enumerate(windows):
            if self.config.shuffle > 1:
                random.Random(number).shuffle(window)
        return super().bundles([row for window in windows for row in window], batch)


@plant("mixing_keeps_to_its_window", "a window holds that many batches")
class WindowOfBatches(Mixed):
    """And needs as much memory."""

    def window(self, batch: int) -> int:
        return int(self.config.shuffle) * batch


@plant("mixing_keeps_to_its_window", "the rows of an epoch are mixed, whatever the option says")
class MixesAnyway(Mixed):
    """Documents come in pieces."""

    def bundles(self, rows: list[list[Any]], batch: int) -> list[list[Any]]:
        return super().bundles(random.Random(0).sample(rows, len(rows)), batch)


class Cuts(Rows):
    """Of each document only the first row."""

    truncates = True

    def kept(self, length: int, time: int) -> list[int]:
        """Which tokens of a document."""
        return list(range(min(length, time)))

    def rows(self, documents: list[Tokens], time: int, end_of_text: int) -> list[list[Any]]:
        cut = [Tokens(d.ids[self.kept(len(d.ids), time)], None, d.name, d.group, d.label) for d in documents]
        return super().rows(cut, time, end_of_text)


@plant("what_is_kept_is_one_stretch", "half from the beginning and half from the end")
class SewsEnds(Cuts):
    """The middle is missing."""

    def kept(self, length: int, time: int) -> list[int]:
        every = list(range(length))
        return every if length <= time else every[: time // 2] + every[-(time - time // 2) :]


@plant("what_is_kept_is_one_stretch", "what is longer than a row is dropped")
class DropsLongOnes(Cuts):
    """As some corpora are filtered, but without a word."""

    def kept(self, length: int, time: int) -> list[int]:
        return super().kept(length, time) if length <= time else []
