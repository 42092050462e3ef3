"""All ways to cut many words into pieces, as one graph that numpy walks word by word at once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_PIECE = ""


@dataclass(frozen=True)
class _Level:
    """Edges that lead to the same place in their words, those to one node side by side."""

    edges: slice
    groups: Integers
    nodes: Integers


class Lattices:
    """A node for each place of each word, an edge for each piece that leads from one to another.

    Edges are sorted by the place where they end, then by word, then by where they start; so a step of the forward pass
    is one operation on a slice, whatever the number of words.

    Attributes:
        firsts, lasts: node of each word's beginning and end, (words).
        sources, targets, pieces, owners: nodes, piece and word of each edge, (edges).
    """

    def __init__(
        self,
        firsts: Integers,
        lasts: Integers,
        sources: Integers,
        targets: Integers,
        pieces: Integers,
        owners: Integers,
    ) -> None:
        places = targets - firsts[owners]
        order = np.lexsort((sources, targets, places))
        self.firsts, self.lasts, self.owners = firsts, lasts, owners[order]
        self.sources, self.targets, self.pieces = sources[order], targets[order], pieces[order]
        self._forward = _levels(places[order], self.targets)
        # The backward pass sees the edges by where they start.
        starts = self.sources - firsts[self.owners]
        self._by_source = np.lexsort((self.sources, starts))
        self._backward = _levels(starts[self._by_source], self.sources[self._by_source])[::-1]

    @classmethod
    def of(cls, words: Sequence[str], pieces: Sequence[str]) -> Self:
        """All edges that spell a piece."""
        tree: dict[str, Any] = {}
        for number, piece in enumerate(pieces):
            node = tree
            for character in piece:
                node = node.setdefault(character, {})
            node[_PIECE] = number
        edges = array("q")  # four numbers after each other; tuples of them would be five times as large
        firsts = np.cumsum([0, *(len(word) + 1 for word in words)])
        for owner, word in enumerate(words):
            first = int(firsts[owner])
            for start in range(len(word)):
                node = tree
                for end in range(start, len(word)):
                    following = node.get(word[end])
                    if following is None:
                        break
                    node = following
                    if _PIECE in node:
                        edges.extend((first + start, first + end + 1, node[_PIECE], owner))
        columns = np.frombuffer(edges, dtype=np.int64).reshape(-1, 4).T
        return cls(firsts[:-1], firsts[1:] - 1, *columns)

    def where(self, kept: Flags) -> Lattices:
        """Only those edges for which the flag is set."""
        return Lattices(
            self.firsts, self.lasts, self.sources[kept], self.targets[kept], self.pieces[kept], self.owners[kept]
        )

    def expected(self, scores: Floats, weights: Floats) -> Floats:
        """How often each piece is expected in words that occur so often (forward-backward); (pieces)."""
        costs = scores[self.pieces]
        before = np.full(self.lasts[-1] + 1, -np.inf)
        after = before.copy()
        before[self.firsts] = after[self.lasts] = 0.0
        for level in self._forward:
            arriving = before[self.sources[level.edges]] + costs[level.edges]
            before[level.nodes] = np.logaddexp.reduceat(arriving, level.groups)
        for level in self._backward:
            edges = self._by_source[level.edges]
            after[level.nodes] = np.logaddexp.reduceat(after[self.targets[edges]] + costs[edges], level.groups)
        whole = before[self.lasts][self.owners]
        probable = np.exp(before[self.sources] + costs + after[self.targets] - whole) * weights[self.owners]
        return np.bincount(self.pieces, probable, len(scores)).astype(np.float64)

    def best(self, scores: Floats) -> tuple[Floats, Integers]:
        """Score of each word's best way, (words), −∞ where there is none; and the edge that ends it at each node.

        Of equals the longest last piece (Viterbi).
        """
        costs = scores[self.pieces]
        best, ending = np.full(self.lasts[-1] + 1, -np.inf), np.full(self.lasts[-1] + 1, -1)
        best[self.firsts] = 0.0
        numbers = np.arange(len(costs))
        for level in self._forward:
            arriving = best[self.sources[level.edges]] + costs[level.edges]
            highest = np.maximum.reduceat(arriving, level.groups)
            sizes = np.diff([*level.groups, len(arriving)])
            winning = np.where(arriving == np.repeat(highest, sizes), numbers[level.edges], len(costs))
            best[level.nodes] = highest
            ending[level.nodes] = np.where(highest > -np.inf, np.minimum.reduceat(winning, level.groups), -1)
        return best[self.lasts], ending

    def walk(self, ending: Integers) -> Iterator[tuple[Integers, Integers]]:
        """Words, and a piece of the best way of each, from the last piece to the first."""
        words = np.flatnonzero(ending[self.lasts] >= 0)
        nodes = self.lasts[words]
        while len(words):
            edges = ending[nodes]
            yield words, self.pieces[edges]
            going = self.sources[edges] != self.firsts[words]
            words, nodes = words[going], self.sources[edges][going]


def _levels(places: Integers, nodes: Integers) -> list[_Level]:
    """Slices of edges whose place is the same, each with the groups of those at the same node."""
    bounds = [0, *(np.flatnonzero(np.diff(places)) + 1), len(places)]
    levels = []
    for start, end in pairwise(bounds):
        if start < end:
            own = nodes[start:end]
            groups = np.flatnonzero(np.diff(own, prepend=-1))
            levels.append(_Level(slice(int(start), int(end)), groups, own[groups]))
    return levels
