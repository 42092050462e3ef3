"""Strings that are hard on tokenizers, and small corpora."""

from __future__ import annotations

from functools import cache
from typing import Final

from hypothesis import strategies as st

from corelm.conformance.framework import Draw

TRAPS: Final = (
    "  ", " .", " ,", "\r\n", "\n\n", "\t", " ", "e\u0301", "\u00e9", "👩‍👩‍👧", "🇫🇷", "ﬁ", "Å", "\u212b", "١٢٣", "1234567",
    "<|endoftext|>", "<|padding|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "\u00a0", "\u200b", "\ufeff", "ß", "İ", "'s",
    "don't", "I'LL", "the", "The", " the", "aaa", "aaaa", "abab", "日本語", "नमस्ते", "\x00", "\x7f", "_", "🙂", "\U0010ffff",
    "\u1112\u1161\u11ab", "\u09c7\u09be",
)  # fmt: skip
"""Pieces that broke tokenizers elsewhere."""

CORPUS: Final = (
    "The cat sat on the mat, and the cat saw the rat.",
    "def area(width, height):\n    return width * height\n",
    "aaa aaaa aaaaa abab ababab banana bandana",
    "It isn't the end; it's the 2nd of 1234 beginnings.\r\n\r\nThen the rest.",
    "héllo wörld, naïve café 日本語 नमस्ते 🙂🙂",
    "the the the then there these those them thesis other another",
)
"""What trained tokenizers are trained on, so that drawn strings hit their merges."""


def text(draw: Draw, label: str = "text") -> str:
    """A string: mostly traps and slices of the corpus, sometimes any scalar values."""
    return draw.of(label, _text())


@cache
def _text() -> st.SearchStrategy[str]:
    scalars = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    joined = "".join(CORPUS)
    slices = st.tuples(st.integers(0, len(joined)), st.integers(1, 30)).map(lambda s: joined[s[0] : s[0] + s[1]])
    pieces = st.lists(st.one_of(st.sampled_from(TRAPS), slices), min_size=1, max_size=6).map("".join)
    return st.one_of(pieces, pieces, pieces, pieces, scalars)


def words(draw: Draw, label: str = "word") -> str:
    """A short word that merges apply to."""
    return draw.of(label, _words())


@cache
def _words() -> st.SearchStrategy[str]:
    pieces = st.sampled_from(
        ["aaa", "a", "aa", "aaaaa", "b", "an", "ab", "t", "h", "e", "th", "he", "re", "n", "ana", "s"]
    )
    return st.lists(pieces, max_size=9).map("".join)
