"""Learns the merges of byte-pair encoding from counted words."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping
from itertools import pairwise
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

    All places where a pair stands are known once the younger of its pieces is born; from then on they only get fewer.
    So each pair has one list of places, of which those that were joined away are skipped, and a heap of candidates is
    exact if a count is checked when it comes up: the work is that of the places changed, not of passes over the text.
    Memory: some ten machine words per byte of the *different* words.

    Returns:
        merges as pairs of ids: the byte's value below 256, then pieces in the order of their birth.
    """
    return _Learner(words).learn(pieces)


class _Learner:
    """Words as one chain of symbols; inside, bytes are numbered by their place in the alphabet."""

    def __init__(self, words: Mapping[str, int]) -> None:
        ranks = bytes(ALPHABET.index(value) for value in range(256))
        self.symbols: list[int] = [_END]
        self.weights: list[int] = [0]
        for word, count in words.items():
            self.symbols += word.encode().translate(ranks)
            self.weights += [count] * (len(self.symbols) - len(self.weights) + 1)
            self.symbols.append(_END)
        self.after = array("q", range(1, len(self.symbols) + 1))
        self.before = array("q", range(-1, len(self.symbols) - 1))
        self.counts: dict[Merge, int] = {}
        self.places: dict[Merge, list[int]] = {}
        for place, pair in enumerate(pairwise(self.symbols)):
            if _END not in pair:
                self._add(self.places, pair, place)

    def learn(self, pieces: int) -> list[Merge]:
        """Merge until ``pieces`` are born or nothing is left; see ``learn_merges``."""
        heap = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(heap)
        merges: list[Merge] = []
        while heap and len(merges) < pieces:
            claimed, pair = heapq.heappop(heap)
            count = self.counts[pair]
            if claimed != -count:
                # Counts shrink unseen by the heap; what is still there comes in again at its place.
                if count > 0:
                    heapq.heappush(heap, (-count, pair))
                continue
            born = self._merge(pair, 256 + len(merges))
            for other in born:
                if self.counts[other] > 0:  # some come up and go again: aaaa has aa a, then aa aa
                    heapq.heappush(heap, (-self.counts[other], other))
            self.places |= born
            merges.append(pair)
        return [(_id(left), _id(right)) for left, right in merges]

    def _merge(self, pair: Merge, new: int) -> dict[Merge, list[int]]:
        """Join the pair wherever it stands; returns the pairs that come up, and their places.

        ``new`` is new indeed: the same bytes are never reached in two ways, since text that no piece straddles is
        always cut in the same way.
        """
        left, right = pair
        symbols, after, before, weights = self.symbols, self.after, self.before, self.weights
        born: dict[Merge, list[int]] = {}
        # Places are in order: of overlapping occurrences the leftmost is joined.
        for place in self.places.pop(pair):
            second = after[place]
            if symbols[place] != left or symbols[second] != right:
                continue
            previous, following = before[place], after[second]
            if symbols[previous] >= 0:
                self.counts[symbols[previous], left] -= weights[place]
                self._add(born, (symbols[previous], new), previous)
            if symbols[following] >= 0:
                self.counts[right, symbols[following]] -= weights[place]
                self._add(born, (new, symbols[following]), place)
            symbols[place], symbols[second] = new, _GONE
            after[place], before[following] = following, place
        return born

    def _add(self, places: dict[Merge, list[int]], pair: Merge, place: int) -> None:
        if pair in places:
            places[pair].append(place)
            self.counts[pair] += self.weights[place]
        else:
            places[pair] = [place]
            self.counts[pair] = self.weights[place]


def _id(number: int) -> int:
    return ALPHABET[number] if number < 256 else number
