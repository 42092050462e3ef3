"""What is done to a text before it is cut: the normalisers of ``tokenizer.json``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Final, Protocol

import regex

from corelm.errors import UserError
from corelm_tokenizers import description_steps as words
from corelm_tokenizers.byte_letters import letters
from corelm_tokenizers.charsmap import CharacterMap, SentencePieceNormaliser
from corelm_tokenizers.normal_forms import Changing, Form, Owners
from corelm_tokenizers.oniguruma import Expression, refused
from corelm_tokenizers.unicode_tables import (
    CONTROLS_8,
    MARKS_9,
    NONSPACING_8,
    characters,
)

SPACES: Final = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
"""The property White_Space."""

# Letters that have a lower case since Unicode 15, 16 or 17: where each run begins, how many there are, how far apart
# they stand, and how far from each its lower case is.
_LOWER_LATER: Final = (
    (0x1C89, 1, 1, 1), (0xA7CB, 1, 1, 0x264 - 0xA7CB), (0xA7CC, 1, 1, 1), (0xA7CE, 1, 1, 1), (0xA7D2, 2, 2, 1),
    (0xA7DA, 1, 1, 1), (0xA7DC, 1, 1, 0x19B - 0xA7DC), (0x10D50, 22, 1, 0x20), (0x16EA0, 25, 1, 0x1B),
)  # fmt: skip
_REMEMBERED: Final = 2**16


class Normaliser(Protocol):
    """Turns a text into another."""

    def normalise(self, text: str) -> str:
        """The other text."""
        ...

    def aligned(self, text: str) -> tuple[str, Owners]:
        """The other text, and where each of its characters comes from."""
        ...


class _Each(dict[str, str]):
    """What becomes of each character, worked out when it is first met."""

    def __init__(self, become: Callable[[str], str]) -> None:
        super().__init__()
        self._become = become

    def __missing__(self, character: str) -> str:
        new = self._become(character)
        if len(self) < _REMEMBERED:
            self[character] = new
        return new


class PerCharacter(Changing):
    """Each character becomes something, whatever stands around it."""

    def __init__(self, become: Callable[[str], str]) -> None:
        self._each = _Each(become)

    def changes(self, text: str) -> Iterable[tuple[int, int, str]]:
        """Characters that become something else."""
        for place, character in enumerate(text):
            new = self._each[character]
            if new != character:
                yield place, place + 1, new

    def normalise(self, text: str) -> str:
        """The other text."""
        return "".join(map(self._each.__getitem__, text))


class Lower(PerCharacter):
    """Lower case, each character by itself: no final sigma."""

    def __init__(self) -> None:
        super().__init__(_lower)

    def normalise(self, text: str) -> str:
        """The text in lower case."""
        return text.lower() if text.isascii() else super().normalise(text)


@cache
def _lower_later() -> dict[str, str]:
    return {
        chr(first + number * step): chr(first + number * step + distance)
        for first, count, step, distance in _LOWER_LATER
        for number in range(count)
    }


def _lower(character: str) -> str:
    return _lower_later().get(character) or character.lower()


class Strip(Changing):
    """Takes white space off the ends."""

    def __init__(self, left: bool, right: bool) -> None:
        self._left, self._right = left, right

    def changes(self, text: str) -> Iterable[tuple[int, int, str]]:
        """The ends."""
        start = len(text) - len(text.lstrip(SPACES)) if self._left else 0
        end = len(text.rstrip(SPACES)) if self._right else len(text)
        if start:
            yield 0, start, ""
        if start <= end < len(text):
            yield end, len(text), ""


class Replace(Changing):
    """Writes one text for another, or for what a pattern finds."""

    def __init__(self, pattern: words.Pattern, content: str) -> None:
        self._content = content
        self._literal = pattern.String if isinstance(pattern, words.StringPattern) else None
        self._expression = Expression(pattern.Regex) if isinstance(pattern, words.RegexPattern) else None
        if self._expression and self._expression.matches(""):
            # The library puts what it inserts where nothing stood in places that depend on what follows.
            raise refused(self._expression.pattern, "it finds nothing, and writes something for it")

    def normalise(self, text: str) -> str:
        """The other text."""
        return text.replace(self._literal, self._content) if self._literal else super().normalise(text)

    def changes(self, text: str) -> Iterable[tuple[int, int, str]]:
        """What is found."""
        if self._expression:
            yield from ((start, end, self._content) for start, end in self._expression.matches(text))
        elif self._literal:
            at = text.find(self._literal)
            while at >= 0:
                yield at, at + len(self._literal), self._content
                at = text.find(self._literal, at + len(self._literal))


class Prepend(Changing):
    """Puts something before a text that isn't empty."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def changes(self, text: str) -> Iterable[tuple[int, int, str]]:
        """At the start."""
        if text and self._prefix:
            yield 0, 0, self._prefix


class Precompiled(Changing):
    """SentencePiece's map of characters as the library tokenizers reads it.

    Text is taken grapheme by grapheme. One of fewer than six bytes that begins with a rule becomes what the shortest
    such rule says; otherwise each of its characters that is a rule does.
    """

    def __init__(self, rules: CharacterMap) -> None:
        self._rules = rules
        self._graphemes = _Each(self._become)

    def _become(self, grapheme: str) -> str:
        if len(grapheme.encode("utf-8", "surrogateescape")) < 6:
            whole = self._rules.shortest_prefix(grapheme)
            if whole is not None:
                return whole
        parts = ((self._rules.shortest_prefix(character), character) for character in grapheme)
        return "".join(character if new is None else new for new, character in parts)

    def changes(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Graphemes that become something else."""
        for match in _GRAPHEME.finditer(text):
            new = self._graphemes[match[0]]
            if new != match[0]:
                yield match.start(), match.end(), new

    def normalise(self, text: str) -> str:
        """The other text."""
        return "".join(map(self._graphemes.__getitem__, _GRAPHEME.findall(text)))


_GRAPHEME: Final = regex.compile(r"\X")


class Steps:
    """One normaliser after the other."""

    def __init__(self, steps: Sequence[Normaliser]) -> None:
        self._steps = tuple(steps)

    def normalise(self, text: str) -> str:
        """What the last step leaves."""
        for step in self._steps:
            text = step.normalise(text)
        return text

    def aligned(self, text: str) -> tuple[str, Owners]:
        """What the last step leaves, and where each character comes from."""
        owners = [(place, place + 1) for place in range(len(text))]
        for step in self._steps:
            text, changed = step.aligned(text)
            owners = [through(owners, start, end) for start, end in changed]
        return text, owners


def through(owners: Owners, start: int, end: int) -> tuple[int, int]:
    """Characters of the original that those from ``start`` up to ``end`` come from."""
    if start < end:
        return owners[start][0], owners[end - 1][1]
    place = owners[start][0] if start < len(owners) else owners[-1][1] if owners else 0
    return place, place


# BERT's own (Devlin et al., 2019, arXiv:1810.04805), as the library has it: block 2B740 begins its last part at 2B920.
_IDEOGRAPHS: Final = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B81F), (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)  # fmt: skip


def _bert(options: words.BertNormalizer) -> list[Normaliser]:
    steps: list[Normaliser] = []
    if options.clean_text:
        steps.append(PerCharacter(_clean))
    if options.handle_chinese_chars:
        steps.append(PerCharacter(_apart))
    if options.lowercase if options.strip_accents is None else options.strip_accents:
        gone = characters(NONSPACING_8)
        steps += [Form("NFD"), PerCharacter(lambda character: "" if character in gone else character)]
    return [*steps, Lower()] if options.lowercase else steps


def _clean(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if character in "\0\ufffd" or character in characters(CONTROLS_8):
        return ""
    return " " if character in SPACES else character


def _apart(character: str) -> str:
    ideograph = any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)
    return f" {character} " if ideograph else character


def _nmt(character: str) -> str:
    """What SentencePiece's rules for translation do to control characters and spaces, as the library has it."""
    point = ord(character)
    if 1 <= point <= 8 or point == 0xB or 0xE <= point <= 0x1F or point in (0x7F, 0x8F, 0x9F):
        return ""
    spaces = "\t\n\f\r\u1680\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u2581\ufeff\ufffd"
    return " " if character in spaces else character


def character_map(blob: str | None) -> CharacterMap | None:
    """A compiled map as files write it.

    Raises:
        UserError: it is broken.
    """
    if not blob:
        return None
    try:
        return CharacterMap(base64.b64decode(blob, validate=True))
    except ValueError as error:
        raise UserError(
            f"the precompiled map of characters is broken: {error}",
            remedy="Copy the file again, or make it anew.",
            code="tokenizer-file-damaged",
        ) from error


def normaliser(said: words.Normalizer | None) -> Normaliser | None:
    """What a description's normaliser does; None: nothing.

    Raises:
        UserError: it can't be run exactly.
    """
    steps = [] if said is None else _steps(said)
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else Steps(steps)


def _steps(said: words.Normalizer) -> list[Normaliser]:
    match said:
        case words.NormalizerSequence():
            return [step for one in said.normalizers for step in _steps(one)]
        case words.BertNormalizer():
            return _bert(said)
        case words.Strip():
            return [Strip(said.strip_left, said.strip_right)]
        case words.Replace():
            return [Replace(said.pattern, said.content)]
        case words.Prepend():
            return [Prepend(said.prepend)]
        case words.Precompiled():
            rules = character_map(said.precompiled_charsmap)
            return [Precompiled(rules)] if rules else []
        case words.SentencePieceNormalizer():
            options = said.model_dump(exclude={"type", "precompiled_charsmap"})
            return [SentencePieceNormaliser(character_map(said.precompiled_charsmap), **options)]
        case words.Lowercase():
            return [Lower()]
        case words.StripAccents():
            marks = characters(MARKS_9)
            return [PerCharacter(lambda character: "" if character in marks else character)]
        case words.Nmt():
            return [PerCharacter(_nmt)]
        case words.ByteLevelNormalizer():
            return [PerCharacter(letters)]
        case _:
            return [Form(said.type)]
