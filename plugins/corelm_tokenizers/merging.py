"""Byte-pair encoding by a list of merges, over symbols of any kind."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final

from corelm_tokenizers.fallback import BYTES
from corelm_tokenizers.model import Spans

Rules = Mapping[tuple[int, int], tuple[int, int]]
"""For a pair of symbols: the rank of its merge, and the symbol that it yields."""


def join(symbols: list[int], rules: Rules) -> tuple[int, ...]:
    """Apply merges, the lowest rank first, the leftmost of it first; a heap makes it O(n log n) for long words."""
    return tuple(symbol for symbol in _joined(symbols, rules) if symbol >= 0)


def _joined(symbols: list[int], rules: Rules) -> list[int]:
    """What merges make of symbols, each at the place where it begins; −1 at the others."""
    size = len(symbols)
    symbols = [*symbols, -1]
    after = list(range(1, size + 2))
    before = list(range(-1, size))
    heap = []
    for place in range(size - 1):
        rule = rules.get((symbols[place], symbols[place + 1]))
        if rule:
            heap.append((rule[0], place, symbols[place], symbols[place + 1], rule[1]))
    heapq.heapify(heap)
    while heap:
        _, place, left, right, new = heapq.heappop(heap)
        second = after[place]
        if symbols[place] != left or symbols[second] != right:
            continue
        previous, following = before[place], after[second]
        symbols[place], symbols[second] = new, -1
        after[place], before[following] = following, place
        for start, pair in ((previous, (symbols[previous], new)), (place, (new, symbols[following]))):
            rule = rules.get(pair)
            if rule:
                heapq.heappush(heap, (rule[0], start, *pair, rule[1]))
    return symbols[:-1]


class Merging:
    """Joins neighbours whose merge comes first in the list (Sennrich et al., 2016, arXiv:1508.07909).

    A word begins as its characters. One that is no piece is written as the pieces of its bytes, where ``every_byte``,
    else as the unknown, else not at all.

    Args:
        pieces: spelling of each id; those that no text spells are ``hidden``.
        rules: merges between ids.
        unknown: its id, if there is one.
        fuse: whether neighbouring unknowns are one.
        every_byte: whether characters without a piece are written as bytes, ``<0x00>`` … ``<0xFF>``.
        whole: whether a word that is a piece is that piece, whatever the merges say.
        prefix: what the pieces open with that go on inside of a word.
        suffix: what the pieces close with that end a word.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        rules: Rules,
        *,
        unknown: int | None = None,
        fuse: bool = False,
        every_byte: bool = False,
        whole: bool = False,
        prefix: str = "",
        suffix: str = "",
        hidden: Collection[int] = (),
    ) -> None:
        self.pieces, self.unknown, self.every_byte = tuple(pieces), unknown, every_byte
        reached = frozenset(hidden).intersection(new for _, new in rules.values()) if hidden else ()
        self._rules = {pair: rule for pair, rule in rules.items() if rule[1] not in reached} if reached else rules
        self._numbers = {piece: token for token, piece in enumerate(self.pieces) if token not in hidden}
        self._fuse, self._whole, self._prefix, self._suffix = fuse, whole, prefix, suffix
        self._bytes = [self._numbers[piece] for piece in BYTES] if every_byte else None

    def ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word."""
        if self._whole and word in self._numbers:
            return (self._numbers[word],)
        return join([token for token, _, _ in self._symbols(word)], self._rules)

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """Characters of the word that each of its ids covers."""
        if self._whole and word in self._numbers:
            return [(0, len(word))]
        symbols = self._symbols(word)
        joined = _joined([token for token, _, _ in symbols], self._rules)
        starts = [place for place, token in enumerate(joined) if token >= 0]
        return [(symbols[start][1], symbols[end - 1][2]) for start, end in pairwise([*starts, len(symbols)])]

    def _symbols(self, word: str) -> list[tuple[int, int, int]]:
        """What a word begins as: ids, and the characters, from and up to, that each stands for."""
        symbols: list[tuple[int, int, int]] = []
        pending: int | None = None
        last = len(word) - 1
        for place, character in enumerate(word):
            spelt = self._prefix + character if place else character
            if place == last:
                spelt += self._suffix
            token = self._numbers.get(spelt)
            if token is None and self._bytes is not None:
                values = spelt.encode("utf-8", "surrogateescape")
                symbols += [(self._bytes[value], place, place + 1) for value in values]
            elif token is None:
                if pending is not None and not self._fuse:
                    symbols += self._unknowns(pending, place)
                    pending = None
                pending = place if pending is None else pending
            else:
                if pending is not None:
                    symbols += self._unknowns(pending, place)
                    pending = None
                symbols.append((token, place, place + 1))
        return symbols if pending is None else symbols + self._unknowns(pending, len(word))

    def _unknowns(self, start: int, end: int) -> list[tuple[int, int, int]]:
        return [] if self.unknown is None else [(self.unknown, start, end)]


class Words:
    """One id per word, or the unknown.

    Args:
        pieces: spelling of each id; those that no text spells are ``hidden``.
        unknown: its id, if there is one.
    """

    every_byte: Final = False

    def __init__(self, pieces: Sequence[str], *, unknown: int | None = None, hidden: Collection[int] = ()) -> None:
        self.pieces, self.unknown = tuple(pieces), unknown
        self._numbers = {piece: token for token, piece in enumerate(self.pieces) if token not in hidden}

    def ids(self, word: str) -> tuple[int, ...]:
        """The word's id, else the unknown's."""
        token = self._numbers.get(word, self.unknown)
        return () if token is None else (token,)

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """All of the word."""
        return [(0, len(word)) for _ in ids]
