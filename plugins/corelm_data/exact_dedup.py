"""Exact deduplication of documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from corelm.kinds import Cleaner, ComponentConfig, Text

_WIDTH: Final = 16
_VACANT: Final = bytes(_WIDTH)


class ExactDeduplication(Cleaner):
    """Drops documents whose text has come before.

    The first of equal documents is kept, the others are counted as ``duplicate``. Texts are compared by the first 128
    bits of their SHA-256, kept in an open hash table: 21 to 43 bytes of memory per different document, whatever its
    length.
    """

    class Config(ComponentConfig):
        """There is nothing to choose."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield the first of equal documents."""
        known = _Digests()
        for document in documents:
            self.report.seen += 1
            if known.add(hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).digest()[:_WIDTH]):
                self.report.kept += 1
                yield document
            else:
                self.note_dropped(document, "duplicate")


class _Digests:
    """A set of digests in one block of memory: open addressing, at most three quarters full."""

    def __init__(self) -> None:
        self._slots, self._count = 1024, 0
        self._table = bytearray(_WIDTH * self._slots)

    def add(self, digest: bytes) -> bool:
        """Add a digest; False: it was there."""
        place = self._find(digest)
        if self._table[place : place + _WIDTH] == digest:
            return False
        self._table[place : place + _WIDTH] = digest
        self._count += 1
        if 4 * self._count > 3 * self._slots:
            self._grow()
        return True

    def _find(self, digest: bytes) -> int:
        """Where the digest is, or would be."""
        slot = int.from_bytes(digest[:8], "big") % self._slots
        while self._table[slot * _WIDTH : slot * _WIDTH + _WIDTH] not in (_VACANT, digest):
            slot = (slot + 1) % self._slots
        return slot * _WIDTH

    def _grow(self) -> None:
        old = self._table
        self._slots *= 2
        self._table = bytearray(_WIDTH * self._slots)
        for start in range(0, len(old), _WIDTH):
            digest = bytes(old[start : start + _WIDTH])
            if digest != _VACANT:
                place = self._find(digest)
                self._table[place : place + _WIDTH] = digest
