"""Sets of digests, for what must remember much in little memory."""

from __future__ import annotations


class DigestSet:
    """A set of digests in one block of memory: open addressing, three eighths to three quarters full.

    Of digests of w bytes that is 1⅓ w to 2⅔ w for each, and once more half of it while the block grows. The digest of
    nothing but zeros, one in 2^(8w), can't be held, and counts as one that is there.

    Args:
        width: bytes of a digest, at least 8; they are taken to be evenly spread.
    """

    def __init__(self, width: int) -> None:
        self._width, self._vacant = width, bytes(width)
        self._slots, self._count = 1024, 0
        self._table = bytearray(width * self._slots)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        place = self._find(digest)
        return self._table[place : place + self._width] == digest

    def add(self, digest: bytes) -> bool:
        """Add a digest; False: it was there."""
        place = self._find(digest)
        if self._table[place : place + self._width] == digest:
            return False
        self._table[place : place + self._width] = digest
        self._count += 1
        if 4 * self._count > 3 * self._slots:
            self._grow()
        return True

    def _find(self, digest: bytes) -> int:
        """Where the digest is, or would be."""
        slot, width = int.from_bytes(digest[:8], "big") % self._slots, self._width
        while self._table[slot * width : slot * width + width] not in (self._vacant, digest):
            slot = (slot + 1) % self._slots
        return slot * width

    def _grow(self) -> None:
        old, width = self._table, self._width
        self._slots *= 2
        self._table = bytearray(width * self._slots)
        for start in range(0, len(old), width):
            digest = bytes(old[start : start + width])
            if digest != self._vacant:
                place = self._find(digest)
                self._table[place : place + width] = digest
