"""Exact deduplication of documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from corelm.kinds import Cleaner, ComponentConfig, Text
from corelm_data.digest_set import DigestSet

_WIDTH: Final = 16


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
        known = DigestSet(_WIDTH)
        for document in documents:
            self.report.seen += 1
            if known.add(hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).digest()[:_WIDTH]):
                self.report.kept += 1
                yield document
            else:
                self.note_dropped(document, "duplicate")
