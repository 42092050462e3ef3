"""Where sentences end, for the rules of C4."""

from __future__ import annotations

import re
from typing import Final

END: Final = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)")
"""A mark that ends a sentence, with the quotation marks and brackets that it closes, before white space."""

_SENTENCE: Final = re.compile(rf"(?=\S)[^\n]*?(?:{END.pattern}|$)", re.MULTILINE)


def count(text: str) -> int:
    """Ends of sentences; a line without one is a sentence too."""
    return sum(max(1, len(END.findall(line))) for line in text.split("\n") if line.strip())


def split(text: str) -> tuple[list[str], list[str]]:
    """Sentences, which end at their marks and at the ends of lines, and the white space around and between them.

    There is one more gap than there are sentences; in turns, a gap first, they make the text again.
    """
    found = list(_SENTENCE.finditer(text))
    edges = [0, *(edge for match in found for edge in match.span()), len(text)]
    gaps = [text[start:stop] for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return [match[0] for match in found], gaps
