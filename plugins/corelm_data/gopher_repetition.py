"""The repetition rules of MassiveText, which Gopher was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field

from corelm.kinds import ComponentConfig
from corelm_data.measures import Measure, first_outside
from corelm_data.one_by_one import OneByOne, Verdict

TOP: Final = (2, 3, 4)
DUPLICATE: Final = (5, 6, 7, 8, 9, 10)
_PARAGRAPHS: Final = re.compile(r"\n\s*\n")

Share = Annotated[float, Field(ge=0, le=1)]


class GopherRepetition(OneByOne):
    """Drops documents that repeat themselves, by the rules of Gopher.

    The rules of table A1 of Rae et al., 2021, arXiv:2112.11446, with their thresholds as defaults; what equals its
    threshold passes. A line, paragraph (blank lines separate them) or n-gram of words is a *duplicate* where it has come
    before in the document. ``duplicate-lines`` and ``duplicate-paragraphs`` bound the share of them;
    ``duplicate-line-characters`` and ``duplicate-paragraph-characters`` the share of characters in them;
    ``top-2-gram`` to ``top-4-gram`` the share of characters in all places of the most frequent n-gram (of several, the
    one that covers most; one that stands once is none); ``duplicate-5-grams`` to ``duplicate-10-grams`` the share of
    characters in duplicate n-grams, characters in two that overlap counted once. Characters of n-grams are those of
    words, white space left out. Documents are counted under the first rule that they break.
    """

    class Config(ComponentConfig):
        """The thresholds, all of them shares; 1 switches a rule off."""

        lines: Share = Field(0.30, description="Duplicate lines.")
        paragraphs: Share = Field(0.30, description="Duplicate paragraphs.")
        line_characters: Share = Field(0.20, description="Characters in duplicate lines.")
        paragraph_characters: Share = Field(0.20, description="Characters in duplicate paragraphs.")
        top: list[Share] = Field(
            [0.20, 0.18, 0.16], min_length=3, max_length=3, description="Characters in the top 2-, 3-, 4-gram."
        )
        duplicate: list[Share] = Field(
            [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
            min_length=6,
            max_length=6,
            description="Characters in duplicate 5-, 6-, … 10-grams.",
        )

    def judge(self, text: str) -> Verdict | None:
        """Drop what breaks a rule."""
        return first_outside(self._measures(text))

    def _measures(self, text: str) -> Iterator[Measure]:
        config = self.config
        for name, pieces, most, most_characters in (
            ("line", text.split("\n"), config.lines, config.line_characters),
            ("paragraph", _PARAGRAPHS.split(text), config.paragraphs, config.paragraph_characters),
        ):
            share, characters = _repeated([piece.strip() for piece in pieces if piece.strip()])
            yield Measure(f"duplicate-{name}s", share, most=most)
            yield Measure(f"duplicate-{name}-characters", characters, most=most_characters)
        words = text.split()
        grams = _Grams(words)
        for n, most in zip(TOP, config.top, strict=True):
            yield Measure(f"top-{n}-gram", grams.top(n), most=most)
        for n, most in zip(DUPLICATE, config.duplicate, strict=True):
            yield Measure(f"duplicate-{n}-grams", grams.duplicate(n), most=most)


def _repeated(pieces: Sequence[str]) -> tuple[float, float]:
    """Share of pieces that have come before, and of characters in them."""
    if not pieces:
        return 0.0, 0.0
    different = set(pieces)
    total = sum(map(len, pieces))
    return (len(pieces) - len(different)) / len(pieces), (total - sum(map(len, different))) / total


class _Grams:
    """The n-grams of a document's words, n rising: equal n-grams have equal numbers."""

    def __init__(self, words: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        self.words = np.array([numbers.setdefault(word, len(numbers)) for word in words], dtype=np.int64)
        self.lengths = np.array([len(word) for word in words], dtype=np.int64)
        self.codes, self.n = self.words, 1

    def _to(self, n: int) -> Int[np.ndarray, " grams"]:
        """Number of the n-gram that begins at each word; exact, since pairs of numbers are numbered anew each time."""
        while self.n < n:
            longer = self.codes[:-1] * (len(self.words) + 1) + self.words[self.n :]
            self.codes, self.n = np.unique(longer, return_inverse=True)[1], self.n + 1
        return self.codes

    def top(self, n: int) -> float:
        """Share of characters in the n-gram that comes most often."""
        codes = self._to(n) if len(self.words) >= n else self.words[:0]
        counts = np.bincount(codes) if len(codes) else np.zeros(1, dtype=np.int64)
        most = int(counts.max())
        if most < 2:
            return 0.0
        return max(self._covered(codes == code, n) for code in np.flatnonzero(counts == most))

    def duplicate(self, n: int) -> float:
        """Share of characters in n-grams that have come before."""
        if len(self.words) < n:
            return 0.0
        codes = self._to(n)
        first = np.zeros(len(codes), dtype=bool)
        first[np.unique(codes, return_index=True)[1]] = True
        return self._covered(~first, n)

    def _covered(self, starts: Bool[np.ndarray, " grams"], n: int) -> float:
        """Share of characters in the n-grams that begin at these words."""
        steps = np.zeros(len(self.words) + 1, dtype=np.int64)
        np.add.at(steps, np.flatnonzero(starts), 1)
        np.add.at(steps, np.flatnonzero(starts) + n, -1)
        inside = np.cumsum(steps[:-1]) > 0
        return float(self.lengths[inside].sum() / max(1, self.lengths.sum()))
