"""Cuts long texts into portions, and counts the words of a corpus."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from corelm_tokenizers.patterns import PatternName, splitter

_PORTION: Final = 2**12
_BORDER: Final = re.compile(r"\S(?= )")
"""Every pattern cuts before a space that follows anything but white space, and nothing before it matters after it."""


def words_of(text: str, pattern: PatternName) -> Iterator[list[str]]:
    """The words of a text, a thousand or so at a time: long texts take little memory, and stay in the processor's cache."""
    cut = splitter(pattern)
    if cut is None:
        yield [text]
        return
    start = 0
    while len(text) - start > _PORTION:
        border = _BORDER.search(text, start + _PORTION - 1)
        if border is None:
            break
        yield cut.findall(text[start : border.end()])
        start = border.end()
    yield cut.findall(text[start:] if start else text)


def count_words(documents: Iterable[str], pattern: PatternName) -> Counter[str]:
    """How often each word occurs. Memory: the different words, and one document."""
    counts: Counter[str] = Counter()
    for document in documents:
        for words in words_of(document, pattern):
            counts.update(words)
    return counts
