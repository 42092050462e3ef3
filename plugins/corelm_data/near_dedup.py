"""Near deduplication: MinHash and locality-sensitive hashing."""

from __future__ import annotations

import json
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import UInt32, UInt64
from pydantic import Field

from corelm.kinds import Cleaner, ComponentConfig, Count, Text
from corelm_data.shingles import hashed, shingles, words
from corelm_data.splitmix import mixed

CHUNK: Final = 4096
"""Shingles hashed at once."""


class NearDeduplication(Cleaner):
    """Drops documents that are nearly the same as one that was kept before.

    Two documents are compared as sets A, B of *shingles*, the runs of ``shingle`` words (in lower case, without
    punctuation) or characters in them, by their Jaccard similarity |A ∩ B| / |A ∪ B| (Broder, 1997,
    doi:10.1109/SEQUEN.1997.666900). What is at least ``similarity`` like a kept document is counted as
    ``near-duplicate``.

    Candidates are found without comparing all pairs. Under a random order of all shingles, the first one of A and the
    first one of B are the same with probability s, their similarity. ``bands`` × ``rows`` such orders give each document
    as many numbers; documents that agree in all rows of some band are compared, which happens with probability
    1 − (1 − s^rows)^bands, an S-shaped curve (Indyk & Motwani, 1998, doi:10.1145/276698.276876). For 20 bands of 6 rows:

    =========== ===== ===== ===== ===== ===== ===== ======
    s           0.3   0.4   0.5   0.6   0.7   0.8   0.9
    found       0.014 0.079 0.270 0.615 0.918 0.998 1.000
    =========== ===== ===== ===== ===== ===== ===== ======

    Each candidate is then compared exactly, so that nothing is dropped by chance; what the curve costs are near
    duplicates that are not found, at the defaults 2 in 1,000 of those at the threshold. Lee et al., 2021,
    arXiv:2107.06499, show what duplicates do to language models.

    Memory: 12 bytes per band for each place in a table; tables are three eighths to three quarters full, and there are
    two while one grows. At the defaults that is 320 to 960 bytes for each remembered document, whatever its length;
    ``remember`` bounds their number. Remembered texts lie compressed in a temporary file.
    """

    class Config(ComponentConfig):
        """What is alike, and how it is found."""

        similarity: float = Field(
            0.8, gt=0, le=1, description="Jaccard similarity from which on a document is dropped."
        )
        shingle: int = Field(5, ge=1, description="Words or characters of a shingle.")
        unit: Literal["words", "characters"] = Field(
            "words", description="What shingles are made of; characters where words aren't separated."
        )
        bands: int = Field(20, ge=1, le=1000, description="Bands; more of them find more.")
        rows: int = Field(6, ge=1, le=100, description="Rows of a band; more of them give fewer false candidates.")
        remember: Count = Field(
            1_000_000, ge=1, description="So many kept documents are compared with, at most twice as many."
        )

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield what is like nothing that was kept before."""
        config = self.config
        hashing = MinHash(config.bands, config.rows)
        now, before = _Known(config.bands), _Known(config.bands)
        for document in documents:
            self.report.seen += 1
            pieces = self._pieces(document.text)
            keys = hashing.bands_of(hashed(pieces, config.shingle))
            alike = self._alike(pieces, keys, (before, now))
            if alike:
                self.note_dropped(document, "near-duplicate", alike)
                continue
            if len(now) >= config.remember:
                now, before = _Known(config.bands), now
            now.add(keys, document)
            self.report.kept += 1
            yield document

    def _pieces(self, text: str) -> Sequence[str]:
        return words(text) if self.config.unit == "words" else text or " "

    def _alike(self, pieces: Sequence[str], keys: UInt64[np.ndarray, " bands"], known: Sequence[_Known]) -> str:
        """The first remembered document that is similar enough, in words; '' where there is none."""
        mine: set[tuple[str, ...]] = set()
        for generation in known:
            for number in generation.candidates(keys):
                other = generation.document(number)
                mine = mine or shingles(pieces, self.config.shingle)
                found = jaccard(mine, shingles(self._pieces(other.text), self.config.shingle))
                if found >= self.config.similarity:
                    return f"similarity {found:.3f} to {other.name}"
        return ""


def jaccard(a: set[Any], b: set[Any]) -> float:
    """Size of the intersection by size of the union."""
    return len(a & b) / len(a | b)


class MinHash:
    """Signatures of sets of hashes, and the keys of their bands.

    Order k is by ``(a_k · hash + b_k) mod 2^64``, its upper 32 bits, with a_k odd: multiply-add-shift (Dietzfelbinger et
    al., 1997, doi:10.1006/jagm.1997.0873).
    """

    def __init__(self, bands: int, rows: int) -> None:
        drawn = np.random.PCG64(0).random_raw(2 * bands * rows)
        self._factors, self._terms = drawn[: bands * rows, None] | np.uint64(1), drawn[bands * rows :, None]
        self._shape = (bands, rows)

    def signature(self, hashes: UInt64[np.ndarray, " shingles"]) -> UInt32[np.ndarray, " orders"]:
        """The smallest number of the set under each order; two sets agree in one with their similarity's probability."""
        least = np.full(len(self._factors), 2**32 - 1, dtype=np.uint32)
        for start in range(0, len(hashes), CHUNK):
            numbers = (self._factors * hashes[start : start + CHUNK] + self._terms) >> np.uint64(32)
            np.minimum(least, numbers.min(axis=1).astype(np.uint32), out=least)
        return least

    def bands_of(self, hashes: UInt64[np.ndarray, " shingles"]) -> UInt64[np.ndarray, " bands"]:
        """One key per band."""
        rows = self.signature(hashes).reshape(self._shape).astype(np.uint64)
        key = np.zeros(len(rows), dtype=np.uint64)
        for row in rows.T:
            key = mixed(key + row + np.uint64(1))
        return key


class _Known:
    """Remembered documents: for each band an open hash table from keys to documents; texts in a file."""

    def __init__(self, bands: int) -> None:
        self._bands = np.arange(bands)
        self._file: Any = None
        self._places = array("Q")
        self._reserve(64)

    def __len__(self) -> int:
        return len(self._places)

    def _reserve(self, slots: int) -> None:
        self._mask = np.uint64(slots - 1)
        self._keys = np.zeros((len(self._bands), slots), dtype=np.uint64)
        self._owners = np.zeros((len(self._bands), slots), dtype=np.uint32)  # 0: vacant, else document + 1

    def candidates(self, keys: UInt64[np.ndarray, " bands"]) -> list[int]:
        """Documents that have one of these keys in its band, the earliest first."""
        found: set[int] = set()
        bands, slots = self._bands, keys & self._mask
        while len(bands):
            owners = self._owners[bands, slots]
            taken = owners > 0
            bands, slots, keys, owners = bands[taken], slots[taken], keys[taken], owners[taken]
            found.update((owners[self._keys[bands, slots] == keys] - 1).tolist())
            slots = (slots + np.uint64(1)) & self._mask
        return sorted(found)

    def add(self, keys: UInt64[np.ndarray, " bands"], document: Text) -> None:
        """Remember a document."""
        self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as what is remembered
        self._places.append(self._file.seek(0, 2))
        self._file.write(zlib.compress(json.dumps([document.text, document.name]).encode(), 1))
        self._insert(keys, len(self._places))
        if 3 * self._owners.shape[1] < 4 * len(self._places):
            self._grow()

    def _insert(self, keys: UInt64[np.ndarray, " bands"], owner: int) -> None:
        slots = keys & self._mask
        while (taken := self._owners[self._bands, slots] > 0).any():
            slots = np.where(taken, (slots + np.uint64(1)) & self._mask, slots)
        self._keys[self._bands, slots], self._owners[self._bands, slots] = keys, owner

    def _grow(self) -> None:
        """Twice as many slots, band by band; all documents of a band look for a place at once."""
        old_keys, old_owners = self._keys, self._owners
        self._reserve(2 * old_keys.shape[1])
        for band in self._bands:
            owners = old_owners[band][old_owners[band] > 0]
            keys = old_keys[band][old_owners[band] > 0]
            slots = keys & self._mask
            while len(owners):
                free = np.flatnonzero(self._owners[band, slots] == 0)
                placed = free[np.unique(slots[free], return_index=True)[1]]  # of several at one slot, the first
                self._keys[band, slots[placed]], self._owners[band, slots[placed]] = keys[placed], owners[placed]
                owners, keys, slots = (np.delete(left, placed) for left in (owners, keys, slots))
                slots = (slots + np.uint64(1)) & self._mask

    def document(self, number: int) -> Text:
        """A remembered document."""
        self._file.seek(self._places[number])
        end = self._places[number + 1] if number + 1 < len(self._places) else None
        data = self._file.read() if end is None else self._file.read(end - self._places[number])
        text, name = json.loads(zlib.decompress(data))
        return Text(text, name)
