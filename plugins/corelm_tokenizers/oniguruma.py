"""Regular expressions of Oniguruma, run by ``regex``.

Files of the library tokenizers are written for Oniguruma (K. Kosako), with Unicode 16.0. The two engines differ in
syntax (``^``, ``$``, ``\\h``, ``\\z``, possessive counts), in classes and in their version of Unicode. A pattern is
translated piece by piece; what isn't known to mean the same is refused by name.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import regex

from corelm.errors import UserError
from corelm_tokenizers.unicode_tables import UNASSIGNED_16, points

Bounds = list[tuple[int, int]]
"""From and up to which character, one pair for each match."""

# Inside of a class \w has no ² or ½; outside it has those of Latin-1.
_WORD_IN_CLASS: Final = r"[\w--[\u200c\u200d]]"
_WORD: Final = rf"[{_WORD_IN_CLASS}²³¹¼½¾]"
UNASSIGNED: Final = "\u0378"

_CLASSES: Final = {
    **{f"\\{letter}": f"\\{letter}" for letter in "sSdD"},
    r"\w": _WORD,
    r"\W": f"[^{_WORD}]",
    r"\h": "[0-9A-Fa-f]",
    r"\H": "[^0-9A-Fa-f]",
}
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a", "e": "\x1b"}
_PLACES: Final = {
    "A": r"\A",
    "z": r"\Z",
    "Z": r"(?=\n?\Z)",
    "b": rf"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))",
    "B": rf"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))",
    "R": r"(?>\r\n|[\n-\r\x85\u2028\u2029])",
}
_CATEGORIES: Final = frozenset((
    "C", "Cc", "Cf", "Cn", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No",
    "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
))  # fmt: skip
_SCRIPTS: Final = frozenset((
    "Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Georgian", "Greek", "Gujarati", "Han", "Hangul",
    "Hebrew", "Hiragana", "Katakana", "Khmer", "Lao", "Latin", "Myanmar", "Tamil", "Thai", "Tibetan",
))  # fmt: skip
# Unicode 17 made U+0295 a letter without case.
_CHANGED: Final = {"Ll": r"[\p{Ll}\u0295]", "Lo": r"[\p{Lo}--[\u0295]]"}
_POSIX: Final = {
    "alpha": r"\p{Alphabetic}",
    "digit": r"\p{Nd}",
    "alnum": r"[\p{Alphabetic}\p{Nd}]",
    "space": r"\s",
    "upper": r"\p{Uppercase}",
    "lower": r"[\p{Lowercase}\u0295]",
    "xdigit": "[0-9A-Fa-f]",
}
_GROUPS: Final = ("(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>")
_LINE_BEGINS: Final = r"(?:\A|(?<=\n)(?!\Z))"
_LINE_ENDS: Final = r"(?=\n|\Z)"


@cache
def _later() -> frozenset[str]:
    """Characters that ``regex`` knows and Unicode 16.0 doesn't."""
    blank = "".join(chr(point) for first, last in points(UNASSIGNED_16) for point in range(first, last + 1))
    return frozenset(regex.findall(r"\P{Cn}", blank))


def as_of_16(text: str) -> str:
    """The text with characters newer than Unicode 16.0 replaced by one that no version has; as long as it was."""
    if text.isascii() or _later().isdisjoint(text):
        return text
    later = _later()
    return "".join(UNASSIGNED if character in later else character for character in text)


class Expression:
    """A pattern of Oniguruma.

    Raises:
        UserError: it is broken, or says what isn't known to mean the same here.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._compiled = compiled(_translated(pattern), pattern)

    def matches(self, text: str) -> Bounds:
        """Places of the matches, from left to right; an empty one never at the end of the one before."""
        masked = as_of_16(text)
        found = [match.span() for match in self._compiled.finditer(masked)]
        if any(start == end for start, end in found):
            return self._one_by_one(masked)
        return found

    def words(self, text: str) -> list[str] | None:
        """The matches' texts where they are all of the text and none is empty; else None."""
        if as_of_16(text) is not text:
            return None
        words: list[str] = self._compiled.findall(text)
        return words if "" not in words and sum(map(len, words)) == len(text) else None

    def _one_by_one(self, text: str) -> Bounds:
        found: Bounds = []
        at, last = 0, -1
        while at <= len(text):
            match = self._compiled.search(text, at)
            if match is None:
                break
            start, end = match.span()
            if start == end == last:
                at = end + 1
                continue
            found.append((start, end))
            at = last = end
        return found


@cache
def compiled(translated: str, pattern: str) -> regex.Pattern[str]:
    """What ``regex`` makes of a translated pattern; the same one for the same pattern."""
    try:
        return regex.compile(translated, regex.V1)
    except regex.error as error:
        raise refused(pattern, f"it is no pattern: {error}") from error


@cache
def _translated(pattern: str) -> str:
    """The pattern for ``regex``; those of whole alphabets take a quarter of a second."""
    return _Translation(pattern).whole()


def refused(pattern: str, why: str) -> UserError:
    """The error for a pattern that can't be run exactly."""
    shown = pattern if len(pattern) <= 120 else f"{pattern[:120]}…"
    return UserError(
        f"the regular expression {shown!r} can't be run exactly: {why}",
        remedy="Write it otherwise, or run the file by the library: `use: tokenizers-json`.",
        code="pattern-not-representable",
    )


class _Translation:
    """Reads a pattern from left to right, and writes it for ``regex``."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def whole(self) -> str:
        """The pattern for ``regex``."""
        flags = ""
        if self._take("(?i)"):
            flags = "(?i)"
        written: list[str] = []
        opened: list[int] = []
        atom = 0
        while self.at < len(self.pattern):
            character = self.pattern[self.at]
            if character in "*+?{":
                self._quantify(written, atom)
                continue
            if character == ")":
                if not opened:
                    raise refused(self.pattern, "a bracket is closed that was not opened")
                atom = opened.pop()
                self.at += 1
                written.append(")")
                continue
            atom = len(written)
            if character == "(":
                opened.append(atom)
                written.append(self._group())
            elif character == "\\":
                written.append(self._escape())
            elif character == "[":
                written.append(self._class())
            else:
                self.at += 1
                written.append({"^": _LINE_BEGINS, "$": _LINE_ENDS}.get(character) or _outside(character))
        return flags + "".join(written)

    def _take(self, text: str) -> bool:
        if not self.pattern.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _quantify(self, written: list[str], atom: int) -> None:
        """``*``, ``+``, ``?`` and counts, lazy or possessive."""
        found = regex.compile(r"[*+?]|\{\d+,?\d*\}|\{,\d+\}").match(self.pattern, self.at)
        if found is None:
            self.at += 1
            written.append(r"\{")
            return
        if not written:
            raise refused(self.pattern, "there is nothing to repeat")
        self.at = found.end()
        count = found[0]
        if count[0] == "{":
            if self.pattern[self.at : self.at + 1] == "?":
                raise refused(self.pattern, "a lazy count")
            # A plus after a count repeats the whole, it doesn't make it possessive.
            if self._take("+"):
                written[atom:] = [f"(?:{''.join(written[atom:])}{count})+"]
                return
        elif self.pattern[self.at : self.at + 1] in ("?", "+"):
            count += self.pattern[self.at]
            self.at += 1
        if self.pattern[self.at : self.at + 1] in ("*", "+", "?"):
            raise refused(self.pattern, "a repetition of a repetition")
        written.append(count)

    def _group(self) -> str:
        for opening in _GROUPS:
            if self._take(opening):
                return opening
        found = regex.compile(r"\(\?(-?)i:").match(self.pattern, self.at)
        if found:
            self.at = found.end()
            return str(found[0])
        named = regex.compile(r"\(\?<\w+>").match(self.pattern, self.at)
        if named:
            self.at = named.end()
            return "(?:"
        if self.pattern.startswith("(?", self.at) or self.pattern.startswith("(*", self.at):
            raise refused(self.pattern, f"the group {self.pattern[self.at : self.at + 4]!r}")
        self.at += 1
        return "(?:"  # nothing refers to groups

    def _escape(self, inside: bool = False) -> str:
        """An escape; ``inside`` of a class places mean nothing."""
        self.at += 1
        letter = self.pattern[self.at : self.at + 1]
        if not letter:
            raise refused(self.pattern, "it ends with a backslash")
        self.at += 1
        if letter in "pP":
            return self._property(letter)
        if inside and letter in "wW":
            return _WORD_IN_CLASS if letter == "w" else f"[^{_WORD_IN_CLASS}]"
        if f"\\{letter}" in _CLASSES:
            return _CLASSES[f"\\{letter}"]
        if letter in _CONTROLS:
            return _inside(_CONTROLS[letter]) if inside else _outside(_CONTROLS[letter])
        if letter in _PLACES and not inside:
            return _PLACES[letter]
        if letter in "xu":
            point = self._point(letter)
            return _inside(point) if inside else _outside(point)
        if letter.isalnum():
            raise refused(self.pattern, f"the escape \\{letter}")
        return _inside(letter) if inside else _outside(letter)

    def _point(self, letter: str) -> str:
        digits = r"\{([0-9A-Fa-f]{1,8})\}|([0-9A-Fa-f]{2})" if letter == "x" else "([0-9A-Fa-f]{4})"
        found = regex.compile(digits).match(self.pattern, self.at)
        if found is None:
            raise refused(self.pattern, f"the escape \\{letter}")
        value = int(next(group for group in found.groups() if group), 16)
        if value > 0x10FFFF or 0xD800 <= value < 0xE000 or (found[0][0] != "{" and letter == "x" and value > 0x7F):
            raise refused(self.pattern, f"no character has the number {value:X}")
        self.at = found.end()
        return chr(value)

    def _property(self, letter: str) -> str:
        found = regex.compile(r"\{(\^?)(\w+)\}").match(self.pattern, self.at)
        if found is None or found[2] not in _CATEGORIES | _SCRIPTS:
            raise refused(self.pattern, f"the property \\{letter}{found[0] if found else ''}")
        self.at = found.end()
        name = found[2]
        changed = _CHANGED.get(name, rf"\p{{{name}}}")
        return changed if (letter == "p") != bool(found[1]) else f"[^{changed}]"

    def _class(self) -> str:
        """A class, with the classes inside of it."""
        self.at += 1
        written = ["[^" if self._take("^") else "["]
        empty = True
        while True:
            if self.at >= len(self.pattern):
                raise refused(self.pattern, "a class has no end")
            if self._take("]"):
                if empty:
                    raise refused(self.pattern, "an empty class, or an unescaped ] in one")
                return "".join([*written, "]"])
            if self._take("&&"):
                if empty:
                    raise refused(self.pattern, "an intersection with nothing")
                written.append("&&")
                empty = True
                continue
            written.append(self._member())
            empty = False

    def _member(self) -> str:
        """One character, range or class in a class."""
        posix = regex.compile(r"\[:(\^?)(\w+):\]").match(self.pattern, self.at)
        if posix:
            if posix[2] not in _POSIX:
                raise refused(self.pattern, f"the class {posix[0]}")
            self.at = posix.end()
            return f"[^{_POSIX[posix[2]]}]" if posix[1] else _POSIX[posix[2]]
        if self.pattern[self.at] == "[":
            return self._class()
        first = self._single()
        # A minus makes a range unless it is the last sign of the class.
        following = self.pattern[self.at + 1 : self.at + 2]
        if self.pattern[self.at : self.at + 1] != "-" or following in ("]", ""):
            return first
        if _is_class(first) or following == "[" or self.pattern.startswith("-&&", self.at):
            raise refused(self.pattern, "a range in a class that ends with a class")
        self.at += 1
        last = self._single()
        if _is_class(last):
            raise refused(self.pattern, "a range in a class that ends with a class")
        return f"{first}-{last}"

    def _single(self) -> str:
        if self.pattern[self.at] == "\\":
            return self._escape(inside=True)
        self.at += 1
        return _inside(self.pattern[self.at - 1])


def _is_class(written: str) -> bool:
    return written[0] == "[" or written[:2] in (r"\p", r"\s", r"\S", r"\d", r"\D")


def _inside(character: str) -> str:
    """A character in a class."""
    return character if character.isalnum() else rf"\U{ord(character):08x}"


def _outside(character: str) -> str:
    """A character outside of classes; ``.`` and ``|`` as they are."""
    return character if character.isalnum() or character in ".|" else rf"\U{ord(character):08x}"
