"""Text as its UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from corelm.kinds import END_OF_TEXT, ComponentConfig
from corelm_tokenizers.vocabulary import ByteLevelTokenizer


class ByteTokenizer(ByteLevelTokenizer):
    """One id per UTF-8 byte.

    Ids 0–255 are the bytes, then come the special tokens. Needs no training: ``train`` reads no document and only
    takes the special tokens. Any text can be written, at the price of long sequences (Xue et al., 2022,
    arXiv:2105.13626).
    """

    class Config(ComponentConfig):
        """There is nothing to choose."""

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """256 bytes and the special tokens."""
        return 256 + len(specials)

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Take the special tokens; the documents are not read."""
        self._set((), specials)

    def _encode_plain(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogateescape"))
