"""What stands at the heart of a tokenizer: the vocabulary that turns one word into ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final, Protocol

from corelm.kinds import spans_of_bytes

__all__ = ["Model", "Remembered", "Spans", "spans_of_bytes", "spans_of_characters"]

Spans = Sequence[tuple[int, int]]
"""Characters of a word, from and up to, one pair for each id."""

_REMEMBERED: Final = 2**16
_LONGEST_REMEMBERED: Final = 64


class Model(Protocol):
    """Turns one word into ids; normalising, cutting and decoding are done around it.

    A word is what is left of a text after normalising and cutting; it is never empty. What it encodes to depends on
    nothing else. Models remember nothing: who calls them does (``Remembered``).
    """

    @property
    def pieces(self) -> Sequence[str]:
        """Spelling of each id, in the file's own alphabet (``##ing``, ``▁the``, ``Ġthe``, ``<0x0A>``)."""
        ...

    @property
    def unknown(self) -> int | None:
        """The id that stands for what can't be written; None where everything can."""
        ...

    @property
    def every_byte(self) -> bool:
        """Whether any bytes can be written; then a word may hold such that are no UTF-8 as surrogate escapes."""
        ...

    def ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word; may be empty where the vocabulary has no way to write it and no unknown."""
        ...

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """Characters of the word that each of its ids covers; all bytes of one character cover that character.

        See ``spans_of_characters`` and ``spans_of_bytes``.
        """
        ...


def spans_of_characters(lengths: Iterable[int]) -> Spans:
    """Spans of ids that cover so many characters each, one after the other."""
    ends = list(accumulate(lengths))
    return list(zip([0, *ends[:-1]], ends, strict=True))


class Remembered(dict[str, tuple[int, ...]]):
    """Ids of words, computed when first asked for; bounded in number and in the words' length.

    When there are too many, those are forgotten that were not asked for since the last time.
    """

    def __init__(self, compute: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._compute = compute
        self._older: dict[str, tuple[int, ...]] = {}

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._older.pop(word, None)
        if ids is None:
            ids = self._compute(word)
        if len(word) <= _LONGEST_REMEMBERED:
            if len(self) >= _REMEMBERED:
                self._older = dict(self)
                self.clear()
            self[word] = ids
        return ids
