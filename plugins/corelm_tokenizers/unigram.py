"""Unigram language model over pieces: of all ways to cut a word, the most probable."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from corelm_tokenizers.fallback import byte_pieces, bytes_of, spans_of_pieces
from corelm_tokenizers.model import Spans

UNKNOWN_PENALTY: Final = 10.0
"""So much less probable, in the logarithm, is a character that no piece spells than the least probable piece."""

_RESET: Final = 100_000.0
"""When the sum for a place exceeds this, float32 counts from there anew, as sentencepiece 0.2.3 does; older ones do not."""

_END: Final = ""
"""Key in the tree of pieces under which a piece that ends there is found."""

Cut = list[tuple[int, int, int]]
"""From, up to, piece; for each piece of a word."""


class Unigram:
    """Cuts a word into the pieces whose probabilities have the greatest product (Kudo, 2018, arXiv:1804.10959).

    Found by Viterbi's algorithm. Ties: of two best ways to a place in the word the one whose last piece is longer is
    taken, place after place; that is what the libraries sentencepiece and tokenizers do. Sums are kept in float64, as
    in tokenizers, or with ``single`` in float32 as in sentencepiece, which decides near ties in long words.

    A character that no piece spells becomes its UTF-8's bytes, where all 256 have a piece ``<0x00>`` … ``<0xFF>``,
    else the unknown; neighbouring unknowns are one.

    Args:
        pieces: spelling of each id.
        scores: logarithm of each one's probability.
        unknown: its id, if there is one.
        every_byte: whether characters without a piece are written as bytes.
        hidden: ids that no text spells: control tokens, bytes, the unknown, unused pieces.
        user_defined: ids that are taken wherever they are spelt.
        single: whether scores and sums are kept in float32.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        scores: Sequence[float],
        *,
        unknown: int | None = None,
        every_byte: bool = False,
        hidden: Collection[int] = (),
        user_defined: Collection[int] = (),
        single: bool = False,
    ) -> None:
        self.pieces = tuple(pieces)
        self.unknown = unknown
        self._bytes = byte_pieces(self.pieces) if every_byte else None
        self._code = "f" if single else "d"
        rounded = array(self._code, scores)
        plain = [score for token, score in enumerate(rounded) if token not in hidden and token not in user_defined]
        self._unknown_score = array(self._code, [min(plain, default=0.0) - UNKNOWN_PENALTY])[0]
        self._tree: dict[str, Any] = {}
        for token, piece in enumerate(self.pieces):
            if token not in hidden and piece:
                node = self._tree
                for character in piece:
                    following = node.get(character)
                    if following is None:  # a dict made in vain for each character would take as long as all the rest
                        following = node[character] = {}
                    node = following
                if token in user_defined:
                    # More than any other way to write it, as sentencepiece 0.2.3 has it; older ones otherwise.
                    rounded[token] = 0.1 * (len(piece.encode()) - 1)
                node[_END] = (rounded[token], token)
        self._longest = max(map(len, self.pieces), default=0)

    @property
    def every_byte(self) -> bool:
        """Whether any bytes can be written."""
        return self._bytes is not None

    def ids(self, word: str) -> tuple[int, ...]:
        """Ids of the most probable way; empty where a character can't be written."""
        return self._spelled(word, self.best(word))

    def sample(self, word: str, alpha: float, generator: random.Random) -> tuple[int, ...]:
        """Ids of a way drawn with its probability to the power of ``alpha`` (Kudo, 2018, section 3.1), made to sum to
        one: 0 draws from all ways alike, ∞ would be ``ids``. By filtering forward and drawing backward, from all ways.
        """
        return self._spelled(word, self._drawn(word, alpha, generator))

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """Characters of the word that each of its ids covers."""
        if self.unknown in ids:
            # How far an unknown reaches is seen only by cutting again.
            found: list[tuple[int, int]] = []
            fused = False
            for start, end, token in self.best(word):
                if token == self.unknown and fused:
                    found[-1] = (found[-1][0], end)
                else:
                    found.append((start, end))
                fused = token == self.unknown
            return tuple(found)
        return spans_of_pieces(word, ids, self.pieces, self._bytes)

    def ways(self, word: str, start: int) -> Iterator[tuple[int, float, int]]:
        """Pieces that the word spells from a place on, shorter ones first: where each ends, its score, its id.

        A character without a piece of its own has the unknown's score, and the id −1.
        """
        node, alone = self._tree, False
        for at in range(start, len(word)):
            following = node.get(word[at])
            if following is None:
                break
            node = following
            if _END in node:
                alone = alone or at == start
                yield at + 1, node[_END][0], node[_END][1]
        if not alone:
            yield start + 1, self._unknown_score, -1

    def best(self, word: str) -> Cut:
        """The most probable way; a character that no piece spells has the unknown's id, or −1."""
        size, unknown = len(word), -1 if self.unknown is None else self.unknown
        best, total = array(self._code, [0.0]) * (size + 1), array(self._code, [0.0])
        starts, tokens = [-1] * (size + 1), [unknown] * (size + 1)
        for start in range(size):
            if self._code == "f" and abs(best[start]) > _RESET:
                offset = best[start]
                best[start] = 0.0
                for later in range(start + 1, min(size + 1, start + self._longest)):
                    if starts[later] >= 0:
                        best[later] -= offset
            here, node, alone = best[start], self._tree, False
            for at in range(start, size):
                following = node.get(word[at])
                if following is None:
                    break
                node = following
                if _END in node:
                    score, token = node[_END]
                    alone = alone or at == start
                    total[0] = here + score
                    if starts[at + 1] < 0 or total[0] > best[at + 1]:
                        best[at + 1], starts[at + 1], tokens[at + 1] = total[0], start, token
            if not alone:
                total[0] = here + self._unknown_score
                if starts[start + 1] < 0 or total[0] > best[start + 1]:
                    best[start + 1], starts[start + 1], tokens[start + 1] = total[0], start, unknown
        cut, end = [], size
        while end:
            cut.append((starts[end], end, tokens[end]))
            end = starts[end]
        return cut[::-1]

    def _drawn(self, word: str, alpha: float, generator: random.Random) -> Cut:
        """A way drawn from all of them, from the end to the beginning."""
        # For each place: logarithm of the sum over all ways that lead there, and the last pieces of those ways.
        sums = [0.0]
        arriving: list[list[tuple[int, float, int]]] = [[] for _ in range(len(word) + 1)]
        for start in range(len(word)):
            for end, score, token in self.ways(word, start):
                arriving[end].append((start, sums[start] + alpha * score, token))
            largest = max(weight for _, weight, _ in arriving[start + 1])
            sums.append(largest + math.log(sum(math.exp(weight - largest) for _, weight, _ in arriving[start + 1])))
        cut, end = [], len(word)
        unknown = -1 if self.unknown is None else self.unknown
        while end:
            weights = [math.exp(weight - sums[end]) for _, weight, _ in arriving[end]]
            start, _, token = generator.choices(arriving[end], weights)[0]
            cut.append((start, end, unknown if token < 0 else token))
            end = start
        return cut[::-1]

    def _spelled(self, word: str, cut: Cut) -> tuple[int, ...]:
        """Ids of a way, with bytes or one unknown for what no piece spells."""
        unknown, ids = -1 if self.unknown is None else self.unknown, []
        for start, end, token in cut:
            if token != unknown:
                ids.append(token)
            elif self._bytes is not None:
                ids += bytes_of(word[start:end], self._bytes)
            elif self.unknown is None:
                return ()
            elif not ids or ids[-1] != unknown:
                ids.append(unknown)
        return tuple(ids)
