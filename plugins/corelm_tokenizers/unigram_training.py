"""Learns the pieces of a unigram language model, and their probabilities, from counted words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np

from corelm_tokenizers.lattices import Flags, Floats, Integers, Lattices

_SEEDS: Final = 1_000_000
_ROUNDS: Final = 2
"""Passes of expectation and maximisation between two prunings."""
_KEPT: Final = 0.75
"""Part of the pieces that outlives a pruning."""
_MARGIN: Final = 1.1
"""So many times the pieces wanted are left when pruning ends; the last cut is by probability."""
_RARE: Final = 0.5
"""A piece that is expected less often is dropped; a character counts as seen so often."""
_GRID: Final = 64
"""Scores are whole multiples of 1/64: so the sums of words' scores are exact in float32 too, further than sentencepiece
lets them grow, and nobody's arithmetic decides between two ways."""


def learn_unigram(
    words: Mapping[str, int], room: int, alphabet: Collection[str], longest: int = 16
) -> list[tuple[str, float]]:
    """Learn at most ``room`` pieces with scores, the logarithms of their probabilities.

    As Kudo (2018, arXiv:1804.10959, section 3.2) and sentencepiece do it: begin with frequent substrings; estimate
    their probabilities by expectation and maximisation, where the maximum is Liang and Klein's (2007) variational one
    (digamma in place of the logarithm), which starves rare pieces; drop those whose loss would cost the least
    likelihood; again, until few are left. Characters of the alphabet stay, whatever they cost.

    Args:
        words: with their frequencies; pieces never cross their ends.
        room: number of pieces, the alphabet included.
        alphabet: characters that have a piece of their own; all others cut words.
        longest: characters of a piece.

    Returns:
        pieces and scores, the most probable first; of equals the first by code point.
    """
    counted = _within(words, alphabet)
    seeds = _seeds(counted, alphabet, longest)
    model = _Model(counted, list(seeds), frozenset(alphabet))
    weights = np.array(list(seeds.values()), dtype=np.float64)
    model.scores = np.log(weights) - np.log(weights.sum())
    while counted:
        for _ in range(_ROUNDS):
            model.estimate()
        if len(model.pieces) <= _MARGIN * room:
            break
        model.prune(max(int(_MARGIN * room), int(_KEPT * len(model.pieces)), len(alphabet)))
    model.scores = np.round(model.scores * _GRID) / _GRID
    return model.chosen(room)


class _Model:
    """Pieces and their scores on the way."""

    def __init__(self, words: Mapping[str, int], pieces: list[str], alphabet: frozenset[str]) -> None:
        self.pieces, self.alphabet = pieces, alphabet
        self.scores: Floats = np.zeros(len(pieces))
        self._letters = self._flags()
        self._weights = np.array(list(words.values()), dtype=np.float64)
        self._words = Lattices.of(list(words), pieces)
        # The ways to write each piece without itself.
        apart = Lattices.of(pieces, pieces)
        self._apart = apart.where(apart.pieces != apart.owners)

    def estimate(self) -> None:
        """One pass of expectation and maximisation."""
        expected = self._words.expected(self.scores, self._weights)
        expected = np.where(self._letters, np.maximum(expected, _RARE), expected)
        kept = expected >= _RARE
        self.scores = _digamma(expected[kept]) - _digamma(expected[kept].sum(keepdims=True))
        self._keep(kept)

    def prune(self, size: int) -> None:
        """Keep the letters and, up to ``size``, the pieces whose loss would cost the most likelihood."""
        counts = np.zeros(len(self.pieces))
        _, ending = self._words.best(self.scores)
        for words, pieces in self._words.walk(ending):
            counts += np.bincount(pieces, self._weights[words], len(counts))
        instead, ending = self._apart.best(self.scores)
        # Without it each of its occurrences would be written by others, which gain as much.
        parts, gained = np.zeros(len(counts)), np.zeros(len(counts))
        with np.errstate(divide="ignore", invalid="ignore"):
            for owners, pieces in self._apart.walk(ending):
                parts[owners] += 1
                gained[owners] += np.log(counts[pieces] + counts[owners])
            total = counts.sum()
            without = gained - parts * np.log(total + counts * (parts - 1))
            losses = counts * (np.log(counts) - np.log(total) - without)
        # What is never used, or written better by others, costs nothing.
        losses[(counts == 0) | (instead > self.scores)] = -np.inf
        losses[self._letters] = np.inf
        order = np.lexsort((np.arange(len(losses)), -losses))
        kept = np.zeros(len(losses), dtype=np.bool_)
        kept[order[:size]] = True
        kept &= losses > -np.inf
        self.scores = self.scores[kept]
        self._keep(kept)

    def chosen(self, room: int) -> list[tuple[str, float]]:
        """The letters and the most probable others; pieces that others write better only where there is room left."""
        instead, _ = self._apart.best(self.scores)
        better = (instead > self.scores).tolist()
        scored = list(zip(self.pieces, self.scores.tolist(), better, strict=True))
        others = sorted((one for one in scored if one[0] not in self.alphabet), key=lambda o: (o[2], -o[1], o[0]))
        letters = [one for one in scored if one[0] in self.alphabet]
        kept = letters + others[: max(0, room - len(letters))]
        return sorted(((piece, score) for piece, score, _ in kept), key=lambda one: (-one[1], one[0]))

    def _keep(self, kept: Flags) -> None:
        """Forget the other pieces and their edges; scores are those of the kept already."""
        if kept.all():
            return
        numbers: Integers = np.cumsum(kept) - 1
        self._words = _renumbered(self._words, kept, numbers)
        firsts, lasts = self._apart.firsts[kept], self._apart.lasts[kept]
        inner = self._apart.where(kept[self._apart.pieces] & kept[self._apart.owners])
        self._apart = Lattices(
            firsts, lasts, inner.sources, inner.targets, numbers[inner.pieces], numbers[inner.owners]
        )
        self.pieces = [piece for piece, flag in zip(self.pieces, kept.tolist(), strict=True) if flag]
        self._letters = self._flags()

    def _flags(self) -> Flags:
        return np.array([piece in self.alphabet for piece in self.pieces], dtype=np.bool_)


def _renumbered(lattices: Lattices, kept: Flags, numbers: Integers) -> Lattices:
    inner = lattices.where(kept[lattices.pieces])
    return Lattices(inner.firsts, inner.lasts, inner.sources, inner.targets, numbers[inner.pieces], inner.owners)


def _within(words: Mapping[str, int], alphabet: Collection[str]) -> dict[str, int]:
    """The words' parts that the alphabet can write, by code point."""
    known = frozenset(alphabet)
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for part in "".join(c if c in known else "\ud800" for c in word).split("\ud800"):
            if part:
                parts[part] += count
    return dict(sorted(parts.items()))


def _seeds(words: Mapping[str, int], alphabet: Collection[str], longest: int) -> dict[str, int]:
    """The alphabet and the substrings that occur twice at least, with how many characters of text they cover.

    One that is always followed by the same character says nothing that the longer one doesn't, and is left out.
    """
    letters: Counter[str] = Counter(dict.fromkeys(sorted(alphabet), 0))
    for word, count in words.items():
        for character in word:
            letters[character] += count
    seeds: dict[str, int] = {}
    shorter: Mapping[str, int] = letters
    for size in range(2, longest + 1):
        counts: Counter[str] = Counter()
        for word, count in words.items():
            for start in range(len(word) - size + 1):
                if word[start : start + size - 1] in shorter:
                    counts[word[start : start + size]] += count
        counts = Counter({piece: count for piece, count in counts.items() if count > 1})
        for piece, count in counts.items():
            if seeds.get(piece[:-1]) == count * (size - 1):
                del seeds[piece[:-1]]
            seeds[piece] = count * size
        if not counts:
            break
        shorter = counts
    best = sorted(seeds.items(), key=lambda seed: (-seed[1], seed[0]))[:_SEEDS]
    return {letter: max(1, count) for letter, count in letters.items()} | dict(best)


def _digamma(x: Floats) -> Floats:
    """The logarithmic derivative of Γ: recurrence up to 6, then the asymptotic series (error below 10⁻⁹)."""
    shift = np.zeros_like(x)
    for _ in range(6):
        small = x < 6
        shift -= np.where(small, 1 / x, 0.0)
        x = np.where(small, x + 1, x)
    square = 1 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    result: Floats = shift + np.log(x) - 0.5 / x - series
    return result
