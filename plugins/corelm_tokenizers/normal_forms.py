"""Normal forms of Unicode, and what normalisers share that say what they change."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Literal

import regex

from corelm_tokenizers.unicode_tables import LATER_NORMALISED, characters, ranges

Owners = list[tuple[int, int]]
"""For each character of a text: from and up to which character of the original it comes from."""


class Changing:
    """Base of normalisers that say what they change: ``normalise`` follows from that, where nothing is quicker."""

    def changes(self, text: str) -> Iterable[tuple[int, int, str]]:
        """From and up to where the text is replaced, and by what; from left to right."""
        raise NotImplementedError

    def normalise(self, text: str) -> str:
        """The other text."""
        written, at = [], 0
        for start, end, new in self.changes(text):
            written += [text[at:start], new]
            at = end
        return "".join([*written, text[at:]])

    def aligned(self, text: str) -> tuple[str, Owners]:
        """The other text, and where each of its characters comes from; what is inserted has no width."""
        written: list[str] = []
        owners: Owners = []
        at = 0
        for start, end, new in self.changes(text):
            owners += [(place, place + 1) for place in range(at, start)]
            owners += [(start, end)] * len(new)
            written += [text[at:start], new]
            at = end
        owners += [(place, place + 1) for place in range(at, len(text))]
        return "".join([*written, text[at:]]), owners


class Form(Changing):
    """A normal form of Unicode (UAX #15), with the characters of Unicode 9.0: later ones stay as they are."""

    def __init__(self, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
        self._form = form

    def normalise(self, text: str) -> str:
        """The text in this form."""
        if text.isascii():
            return text
        if characters(LATER_NORMALISED).isdisjoint(text):
            return unicodedata.normalize(self._form, text)
        parts = _later_normalised().split(text)
        return "".join(
            part if number % 2 else unicodedata.normalize(self._form, part) for number, part in enumerate(parts)
        )

    def changes(self, text: str) -> Iterable[tuple[int, int, str]]:
        """Stretches that no form joins to their neighbours, where they change."""
        start = 0
        for end in range(1, len(text) + 1):
            if end == len(text) or _begins(text[end]):
                old = text[start:end]
                new = self.normalise(old)
                if new != old:
                    yield start, end, new
                start = end


@cache
def _later_normalised() -> regex.Pattern[str]:
    return regex.compile(f"([{ranges(LATER_NORMALISED)}])")


@cache
def _joined_to_the_left() -> frozenset[str]:
    """Characters that compose with one before them."""
    pairs = (unicodedata.decomposition(chr(point)).split() for point in range(0x110000))
    seconds = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and pair[0][0] != "<"}
    return frozenset(seconds | {chr(point) for point in range(0x1161, 0x11C3)})


@cache
def _begins(character: str) -> bool:
    """Whether no form joins a character to what stands before it, or puts it there."""
    first = unicodedata.normalize("NFKD", character)[0]
    return not unicodedata.combining(first) and first not in _joined_to_the_left()
