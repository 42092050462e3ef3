"""Learns pieces by joining neighbours, whatever the symbols are."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping
from itertools import pairwise
from typing import Any

Pair = tuple[str, str]
Order = Callable[[str, str], Any]
Join = Callable[[str, str], str | None]


def join_pairs(
    words: Mapping[tuple[str, ...], int], room: int, join: Join, order: Order, old: Collection[str] = ()
) -> list[str]:
    """Join the pair of neighbours that occurs most often, again and again (Sennrich et al., 2016, arXiv:1508.07909).

    Occurrences overlap: ``aaa`` has the pair ``a a`` twice. Of pairs that occur as often the one that ``order`` puts
    first is joined; the result depends on nothing but the counts.

    Args:
        words: each as its symbols, with its frequency.
        room: so many new symbols at most.
        join: spelling of two neighbours as one; None where they are never joined.
        order: what pairs that occur as often are sorted by; no two alike.
        old: symbols that are there from the beginning, and so never new.

    Returns:
        the new symbols in the order of their birth; fewer than ``room`` where nothing is left to be joined.
    """
    learner = _Learner(words, join, order)
    born: dict[str, None] = {}
    while len(born) < room:
        pair = learner.commonest()
        if pair is None:
            break
        new = learner.merge(*pair)
        if new not in old:
            born[new] = None
    return list(born)


class _Learner:
    """Words, how often each pair stands in them, and in which words."""

    def __init__(self, words: Mapping[tuple[str, ...], int], join: Join, order: Order) -> None:
        self._join, self._order = join, order
        self._words = [list(word) for word in words]
        self._weights = list(words.values())
        self._counts: defaultdict[Pair, int] = defaultdict(int)
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        for number, word in enumerate(self._words):
            for pair in pairwise(word):
                self._counts[pair] += self._weights[number]
                self._places[pair].add(number)
        self._heap: list[tuple[int, Hashable, Pair]] = []
        for pair in self._counts:
            self._offer(pair)

    def commonest(self) -> Pair | None:
        """The pair to join next."""
        while self._heap:
            claimed, _, pair = heapq.heappop(self._heap)
            if -claimed == self._counts[pair] > 0:
                return pair
            # Counts shrink unseen by the heap; what is still there comes in again at its place.
            self._offer(pair)
        return None

    def merge(self, left: str, right: str) -> str:
        """Join a pair wherever it stands, in each word from the left."""
        new = self._join(left, right) or ""
        grown: dict[Pair, None] = {}
        for number in sorted(self._places.pop((left, right))):
            word, weight = self._words[number], self._weights[number]
            joined: list[str] = []
            for symbol in word:
                # What was joined just now can't be joined again: no piece is longer than itself.
                if symbol == right and joined and joined[-1] == left:
                    joined[-1] = new
                else:
                    joined.append(symbol)
            for pair in pairwise(word):
                self._counts[pair] -= weight
            for pair in pairwise(joined):
                self._counts[pair] += weight
                self._places[pair].add(number)
                grown[pair] = None
            self._words[number] = joined
        del self._counts[left, right]
        for pair in grown:
            if new in pair:
                self._offer(pair)
        return new

    def _offer(self, pair: Pair) -> None:
        count = self._counts[pair]
        if count > 0 and self._join(*pair) is not None:
            heapq.heappush(self._heap, (-count, self._order(*pair), pair))
