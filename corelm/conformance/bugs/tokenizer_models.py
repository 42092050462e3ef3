"""Tokenizers that choose wrongly between pieces."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from corelm.conformance.bugs.tokenizer import Pair, Pairs, join
from corelm.conformance.planted import plant, reference
from corelm.kinds.component import ComponentConfig


@reference
class Likeliest(Pairs):
    """The pieces of byte pairs, each with a probability; the most probable way to cut is taken."""

    @property
    def merges(self) -> list[Pair]:
        """None that encoding would follow."""
        return []

    @property
    def scores(self) -> list[float | None]:
        """Made up: short pieces are not the best, nor long ones."""
        pieces = [-4.0 - (rank * 7 % 11) / 2 for rank in range(len(self.pairs))]
        return [*[-5.0 - value % 5 for value in range(256)], *pieces, *[None] * len(self.names)]

    def edges(self, data: bytes, start: int) -> Iterator[tuple[int, int, float]]:
        """Where each piece that fits ends, its id, its score."""
        known: dict[bytes, int] = self.__dict__.setdefault("known", {})
        if len(known) != 256 + len(self.pairs):
            known.update({self.piece(i): i for i in range(256 + len(self.pairs))})
            self.__dict__["worth"] = self.scores
        for end in range(start + 1, min(len(data), start + 24) + 1):
            i = known.get(data[start:end])
            if i is not None:
                yield end, i, self.__dict__["worth"][i]

    def merged(self, ids: list[int]) -> list[int]:
        """Viterbi."""
        data = bytes(ids)
        best: list[tuple[float, int, int]] = [(0.0, 0, 0), *[(-math.inf, 0, 0)] * len(data)]
        for start in range(len(data)):
            for end, i, score in self.edges(data, start):
                best[end] = max(best[end], (best[start][0] + score, start, i))
        cut, end = [], len(data)
        while end:
            cut.append(best[end][2])
            end = best[end][1]
        return cut[::-1]

    def sample(self, text: str, *, alpha: float, generator: random.Random) -> list[int]:
        """What is left after each place is summed up first, then pieces are drawn from the left."""
        data = self.to_bytes(text)
        rest = [0.0] * len(data) + [1.0]
        for start in reversed(range(len(data))):
            rest[start] = sum(self.weight(score, alpha) * rest[end] for end, _, score in self.edges(data, start))
        ids, at = [], 0
        while at < len(data):
            edges = list(self.edges(data, at))
            at, i, _ = generator.choices(edges, [self.weight(s, alpha) * rest[end] for end, _, s in edges])[0]
            ids.append(i)
        return ids

    def weight(self, score: float, alpha: float) -> float:
        """Of a piece."""
        return math.exp(alpha * score)


@plant("most_probable_of_all_ways", "the best piece at each place, whatever comes after")
class TakesTheBestPiece(Likeliest):
    """Greedy."""

    def merged(self, ids: list[int]) -> list[int]:
        data, cut, at = bytes(ids), [], 0
        while at < len(data):
            at, i, _ = max(self.edges(data, at), key=lambda edge: edge[2])
            cut.append(i)
        return cut


@plant("most_probable_of_all_ways", "the fewest pieces, not the most probable")
class TakesTheFewest(Likeliest):
    """Every piece costs the same."""

    def edges(self, data: bytes, start: int) -> Iterator[tuple[int, int, float]]:
        return ((end, i, -1.0) for end, i, _ in super().edges(data, start))


@plant("probabilities_sum_to_one", "pieces of several bytes are as probable as if there were no others")
class ForgetsTheBytes(Likeliest):
    """Each in itself less than one."""

    @property
    def scores(self) -> list[float | None]:
        return [None if score is None else score / 2 for score in super().scores]


@plant("samples_follow_the_probabilities", "pieces are drawn by their own probability, not by that of what follows")
class DrawsPieceByPiece(Likeliest):
    """Not filtered."""

    def sample(self, text: str, *, alpha: float, generator: random.Random) -> list[int]:
        data, ids, at = self.to_bytes(text), [], 0
        while at < len(data):
            edges = list(self.edges(data, at))
            at, i, _ = generator.choices(edges, [self.weight(score, alpha) for _, _, score in edges])[0]
            ids.append(i)
        return ids


@plant("samples_follow_the_probabilities", "alpha is forgotten")
class ForgetsAlpha(Likeliest):
    """Always 1."""

    def weight(self, score: float, alpha: float) -> float:
        return math.exp(score)


@plant("samples_follow_the_probabilities", "always the best way")
class DrawsTheBest(Likeliest):
    """No draw at all."""

    def sample(self, text: str, *, alpha: float, generator: random.Random) -> list[int]:
        return self.plain(text)


@reference
class LongestPiece(Likeliest):
    """The pieces of byte pairs; the longest that fits is taken."""

    longest_piece_first = True

    @property
    def scores(self) -> list[float | None]:
        """As if: what is not looked at."""
        return []

    def edges(self, data: bytes, start: int) -> Iterator[tuple[int, int, float]]:
        """Longer ones are worth more."""
        pieces = {self.piece(i): i for i in range(256 + len(self.pairs))}
        for end in range(start + 1, min(len(data), start + 24) + 1):
            if data[start:end] in pieces:
                yield end, pieces[data[start:end]], float(end)

    def merged(self, ids: list[int]) -> list[int]:
        """From the left."""
        data, cut, at = bytes(ids), [], 0
        while at < len(data):
            at, i, _ = max(self.edges(data, at), key=self.worth)
            cut.append(i)
        return cut

    def worth(self, edge: tuple[int, int, float]) -> Any:
        """The longer the better."""
        return edge[2]


@plant("longest_piece_first", "the search begins one character too short")
class MissesTheLast(LongestPiece):
    """A word that is a piece is never that piece."""

    def edges(self, data: bytes, start: int) -> Iterator[tuple[int, int, float]]:
        found = list(super().edges(data, start))
        return iter(found[:-1] or found)


@plant("longest_piece_first", "the oldest piece that fits")
class TakesTheOldest(LongestPiece):
    """By id."""

    def worth(self, edge: tuple[int, int, float]) -> Any:
        return -edge[1]


@reference
class PairsOnFile(Pairs):
    """Byte pairs in the file that byte-pair encodings share: ids of the bytes, of the merges, of the special tokens."""

    family = "bpe"

    class Config(ComponentConfig):
        """Options."""

        vocab_size: int = Field(300, ge=257, description="Ids.")
        pattern: Literal["none"] = Field("none", description="A text is one word.")

    def save(self, folder: Path) -> None:
        """Merges and special tokens."""
        content = {"merges": self.pairs, "specials": self.names}
        (folder / "vocabulary.json").write_text(json.dumps(content))

    @classmethod
    def load(cls, config: Any, folder: Path) -> Self:
        """Merges and special tokens."""
        loaded, data = cls(config), json.loads((folder / "vocabulary.json").read_text())
        loaded.pairs, loaded.names = [(a, b) for a, b in data["merges"]], tuple(data["specials"])
        return loaded


@plant("family_agrees", "of overlapping pairs the last is joined first, unlike all the others do it")
class JoinsFromTheRight(PairsOnFile):
    """aaa becomes a, aa."""

    def merged(self, ids: list[int]) -> list[int]:
        for rank, (left, right) in enumerate(self.pairs):
            ids = join(ids[::-1], (right, left), 256 + rank)[::-1]
        return ids
