"""Learns the merges of byte-pair encoding from counted words."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

from corelm_tokenizers.vocabulary import Merge

ALPHABET: Final = bytes([*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173])
"""All bytes in the order that breaks ties: those that print in Latin-1 first. (Order of GPT-2's byte alphabet.)"""

_END, _GONE = -1, -2


def learn_merges(words: Mapping[str, int], pieces: int) -> list[Merge]:
    """Learn merges until there are ``pieces`` new pieces, or no pair is left.

    Each step joins the pair of neighbours that occurs most often (Sennrich et al., 2016, arXiv:1508.07909), counted
    over ``words`` with their frequencies. Ties: the pair whose left piece, then whose right piece, is older; single
    bytes are the oldest, in the order of ``ALPHABET``. So the result depends on the counts alone.

    Counts are kept up to date by the places where the pair stands, and a heap holds candidates that are checked when
    they come up: the work is that of the places changed, not of passes over the text. Memory: some ten machine words
    per byte of the *different* words.

    Returns:
        merges as pairs of ids: the byte's value below 256, then pieces in the order of their birth.
    """
    return _Learner(words).learn(pieces)


class _Learner:
    """Words as one chain of symbols; inside, bytes are numbered by their place in the alphabet."""

    def __init__(self, words: Mapping[str, int]) -> None:
        rank = {value: place for place, value in enumerate(ALPHABET)}
        self.symbols: list[int] = [_END]
        self.weights: list[int] = [0]
        for word, count in words.items():
            coded = [rank[value] for value in word.encode()]
            self.symbols += coded
            self.symbols.append(_END)
            self.weights += [count] * (len(coded) + 1)
        self.after = list(range(1, len(self.symbols) + 1))
        self.before = list(range(-1, len(self.symbols) - 1))
        self.counts: dict[Merge, int] = {}
        self.places: dict[Merge, list[int]] = {}
        for place in range(len(self.symbols) - 1):
            left, right = self.symbols[place], self.symbols[place + 1]
            if left >= 0 and right >= 0:
                self._add((left, right), place)

    def learn(self, pieces: int) -> list[Merge]:
        """Merge until ``pieces`` are born or nothing is left; see ``learn_merges``."""
        heap = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(heap)
        merges: list[Merge] = []
        while heap and len(merges) < pieces:
            claimed, pair = heapq.heappop(heap)
            count = self.counts.get(pair, 0)
            if claimed != -count:
                # Counts shrink unseen by the heap; what is still there comes in again at its place.
                if count > 0:
                    heapq.heappush(heap, (-count, pair))
                continue
            for grown in self._merge(pair, 256 + len(merges)):
                heapq.heappush(heap, (-self.counts[grown], grown))
            merges.append(pair)
        return [(_id(left), _id(right)) for left, right in merges]

    def _merge(self, pair: Merge, new: int) -> list[Merge]:
        """Join the pair wherever it stands; returns the pairs that came up.

        ``new`` is new indeed: the same bytes are never reached in two ways, since text that no piece straddles is
        always cut in the same way.
        """
        left, right = pair
        symbols, after, before, weights = self.symbols, self.after, self.before, self.weights
        grown: dict[Merge, None] = {}
        # In order of place: of overlapping occurrences the leftmost is joined.
        for place in sorted(self.places.pop(pair)):
            second = after[place]
            if symbols[place] != left or symbols[second] != right:
                continue
            previous, following, weight = before[place], after[second], weights[place]
            if symbols[previous] >= 0:
                self.counts[symbols[previous], left] -= weight
                grown[self._add((symbols[previous], new), previous)] = None
            if symbols[following] >= 0:
                self.counts[right, symbols[following]] -= weight
                grown[self._add((new, symbols[following]), place)] = None
            symbols[place], symbols[second] = new, _GONE
            after[place], before[following] = following, place
        del self.counts[pair]
        return [other for other in grown if self.counts[other] > 0]

    def _add(self, pair: Merge, place: int) -> Merge:
        self.counts[pair] = self.counts.get(pair, 0) + self.weights[place]
        self.places.setdefault(pair, []).append(place)
        return pair


def _id(number: int) -> int:
    return ALPHABET[number] if number < 256 else number
