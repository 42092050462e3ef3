"""Added tokens: texts that are one id wherever they stand, found before any model sees the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import regex

from corelm_tokenizers.description import AddedToken
from corelm_tokenizers.normalising import SPACES
from corelm_tokenizers.oniguruma import as_of_16

Stretch = tuple[int, int, int]
"""From, up to, id; −1: text."""

_WORD = regex.compile(r"\w")


class Finder:
    """Finds added tokens in a text: the leftmost, of those that begin there the longest.

    Args:
        tokens: what to find.
        spell: how each is spelt in the texts that are searched.
    """

    def __init__(self, tokens: Sequence[AddedToken], spell: Callable[[str], str]) -> None:
        spelt = [(spell(token.content), token) for token in tokens]
        # Of two tokens that are spelt alike the one with the first place in the list counts.
        self._tokens = {text: token for text, token in reversed(spelt) if text}
        self._never = all(token.special for token in self._tokens.values())
        ways = "|".join(map(re.escape, sorted(self._tokens, key=len, reverse=True)))
        self._pattern = re.compile(ways) if ways else None

    def stretches(self, text: str, allow_special: bool) -> list[Stretch] | None:
        """What the text consists of, from left to right; None: it is all text.

        Special tokens that aren't allowed are text, but hide what they overlap, as in the library.
        """
        if self._pattern is None or (self._never and not allow_special):
            return None
        found: list[Stretch] = []
        at = 0
        for match in self._pattern.finditer(text):
            token = self._tokens[match[0]]
            start, end = match.span()
            if token.special and not allow_special:
                continue
            if token.single_word and (_is_word(text[start - 1 : start]) or _is_word(text[end : end + 1])):
                continue
            if token.lstrip:
                start = max(len(text[:start].rstrip(SPACES)), at)
            if token.rstrip:
                end += len(text[end:]) - len(text[end:].lstrip(SPACES))
            if at < start:
                found.append((at, start, -1))
            found.append((start, end, token.id))
            at = end
        if not found:
            return None
        return [*found, (at, len(text), -1)] if at < len(text) else found


def _is_word(character: str) -> bool:
    return bool(_WORD.match(as_of_16(character)))
