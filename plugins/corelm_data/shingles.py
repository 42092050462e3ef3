"""Documents as sets of word n-grams (shingles), hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from jaxtyping import UInt64

from corelm_data.splitmix import mixed

_WORD: Final = re.compile(r"\w+")
_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation; the whole text where it has none."""
    return _WORD.findall(text.lower()) or [text]


def places(text: str) -> list[tuple[int, int]]:
    """Where each of the ``words`` begins and ends in the text itself."""
    lower = text.lower()
    found = [match.span() for match in _WORD.finditer(lower)] or [(0, len(lower))]
    if len(lower) == len(text):
        return found
    # Few capitals have a small letter of two characters (İ): count which one each character is of.
    origin = [number for number, character in enumerate(text) for _ in character.lower()]
    return [(origin[start], origin[stop - 1] + 1) for start, stop in found]


def shingles(pieces: Sequence[str], n: int) -> set[tuple[str, ...]]:
    """The set of runs of ``n`` pieces; the one shorter run of them all where there are fewer."""
    return {tuple(pieces[start : start + n]) for start in range(max(1, len(pieces) - n + 1))}


def hashed(pieces: Sequence[str], n: int) -> UInt64[np.ndarray, " shingles"]:
    """64 bits for each run of ``n`` pieces, in order, the same on every machine; equal runs have equal bits.

    Different runs have different bits but for one pair in 2^64.
    """
    codes = np.array([_code(piece) for piece in pieces], dtype=np.uint64)
    n = min(n, len(codes))
    total = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for place in range(n):
        total = total * _PRIME + codes[place : place + len(total)]
    return mixed(total)


@lru_cache(maxsize=2**16)
def _code(piece: str) -> int:
    return int.from_bytes(hashlib.blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
