"""SentencePiece's model of whole words: a word is a piece, or it is unknown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Final

import regex

from corelm_tokenizers.fallback import byte_pieces, bytes_of
from corelm_tokenizers.model import Spans, spans_of_bytes

_WORD: Final = regex.compile("▁[^▁]*|[^▁]+")


class SentenceWords:
    """Each stretch from one ``▁`` up to the next is one piece (Kudo and Richardson, 2018, arXiv:1808.06226).

    A stretch that no piece spells becomes its UTF-8's bytes, where all 256 have a piece ``<0x00>`` … ``<0xFF>``, else
    the unknown; neighbouring unknowns are one.

    Args:
        pieces: spelling of each id.
        unknown: the id for what no piece spells.
        every_byte: whether that is written as bytes.
        hidden: ids that no text spells: control tokens, bytes, the unknown, unused pieces.
    """

    def __init__(
        self, pieces: Sequence[str], *, unknown: int, every_byte: bool = False, hidden: Collection[int] = ()
    ) -> None:
        self.pieces = tuple(pieces)
        self.unknown: int | None = unknown
        self._bytes = byte_pieces(self.pieces) if every_byte else None
        self._numbers = {piece: token for token, piece in enumerate(self.pieces) if token not in hidden}

    @property
    def every_byte(self) -> bool:
        """Whether any bytes can be written."""
        return self._bytes is not None

    def ids(self, word: str) -> tuple[int, ...]:
        """Ids of a text without spaces."""
        return tuple(token for token, _ in self._cut(word))

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """Characters of the text that each of its ids covers."""
        found: Spans = spans_of_bytes(word, [length for _, length in self._cut(word)])
        return found

    def _cut(self, word: str) -> list[tuple[int, int]]:
        """Each id, and how many bytes it covers."""
        found: list[tuple[int, int]] = []
        for stretch in _WORD.findall(word):
            raw = stretch.encode("utf-8", "surrogateescape")
            token = self._numbers.get(stretch)
            if token is None and self._bytes is not None:
                found += [(number, 1) for number in bytes_of(stretch, self._bytes)]
            else:
                found.append((self.unknown if token is None else token, len(raw)))  # type: ignore[arg-type]
        if self._bytes is not None:
            return found
        fused: list[tuple[int, int]] = []
        for token, run in groupby(found, key=lambda one: one[0]):
            lengths = [length for _, length in run]
            fused += [(token, sum(lengths))] if token == self.unknown else [(token, length) for length in lengths]
        return fused
