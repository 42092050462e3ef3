"""WordPiece: the longest piece that fits, then the longest that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from corelm_tokenizers.model import Spans, spans_of_characters

PREFIX: Final = "##"
"""Opens the pieces that go on inside of a word."""


class WordPiece:
    """Cuts a word from the left, each time at the longest piece that fits (Devlin et al., 2019, arXiv:1810.04805).

    Pieces that go on inside of a word open with ``prefix``. A word that can't be cut up to its end so, and one of more
    than ``longest_word`` characters, is one unknown.
    """

    every_byte = False

    def __init__(
        self, pieces: Sequence[str], *, unknown: int | None, prefix: str = PREFIX, longest_word: int = 100
    ) -> None:
        self.pieces = tuple(pieces)
        self.unknown = unknown
        self._prefix, self._longest_word = prefix, longest_word
        self._opening = {piece: token for token, piece in enumerate(self.pieces)}
        self._inside = {
            piece[len(prefix) :]: token for piece, token in self._opening.items() if piece.startswith(prefix)
        }
        self._longest = max(map(len, self.pieces), default=0)

    def ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word; empty where it can't be written and there is no unknown."""
        unknown = () if self.unknown is None else (self.unknown,)
        if len(word) > self._longest_word:
            return unknown
        ids: list[int] = []
        start, known = 0, self._opening
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                token = known.get(word[start:end])
                if token is not None:
                    break
            else:
                return unknown
            ids.append(token)
            start, known = end, self._inside
        return tuple(ids)

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """Characters of the word that each of its ids covers; the unknown covers all of it."""
        if self.unknown in ids and len(ids) == 1:
            return ((0, len(word)),)
        inside = [0, *[len(self._prefix)] * (len(ids) - 1)]
        return spans_of_characters(len(self.pieces[token]) - extra for token, extra in zip(ids, inside, strict=True))
