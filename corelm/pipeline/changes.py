"""What changed between two texts, word by word, for people to see."""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import Final, Literal, NamedTuple

from corelm.kinds.records import EXCERPT

_PIECES: Final = re.compile(r"\s|\w+|[^\w\s]")


class Change(NamedTuple):
    """A stretch of text that stayed, went, or came."""

    kind: Literal["same", "gone", "new"]
    text: str


def changes(before: str, after: str) -> list[Change]:
    """Stretches in order; joined, those that are not new make ``before``, those that are not gone ``after``.

    Of excerpts (see ``corelm.kinds.records``) that were cut off, the last difference is left out: it is where they end.
    The time grows with the product of the lengths.
    """
    old, new = _PIECES.findall(before), _PIECES.findall(after)
    found: list[Change] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Change("same", "".join(old[a:b])))
            continue
        if b > a:
            found.append(Change("gone", "".join(old[a:b])))
        if d > c:
            found.append(Change("new", "".join(new[c:d])))
    cut = max(len(before), len(after)) >= EXCERPT
    while cut and len(found) > 1 and found[-1].kind != "same" and any(change.kind != "same" for change in found[:-2]):
        found.pop()
    return [*found, Change("same", " …")] if cut else found


def visible(text: str) -> str:
    """Text with signs for the characters that nobody sees: controls, marks without width, unusual spaces."""
    return "".join(map(_sign, text))


def _sign(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\n\t ":
        return {"\n": "↵\n", "\t": "→\t", " ": " "}[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    unseen = category in ("Cc", "Cf", "Co", "Cn", "Zs", "Zl", "Zp")
    return f"⟨{ord(character):04X}⟩" if unseen else character
