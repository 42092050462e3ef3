"""How a text is cut into words: the pre-tokenisers of ``tokenizer.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Final

import regex

from corelm.errors import UserError
from corelm_tokenizers import description_steps as words
from corelm_tokenizers.byte_letters import letters
from corelm_tokenizers.normal_forms import Owners
from corelm_tokenizers.normalising import SPACES
from corelm_tokenizers.oniguruma import Bounds, Expression, as_of_16
from corelm_tokenizers.unicode_tables import NUMBERS_17, PUNCTUATION_8, ranges

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ASCII_SIGNS: Final = r"!-/:-@\[-`{-~"

Word = tuple[str, Owners]
"""A stretch of text, and where each of its characters comes from."""


class Cut:
    """Cuts a text; some of it may be left out."""

    def __init__(
        self,
        bounds: Callable[[str], Bounds],
        quick: Callable[[str], list[str] | None] | None = None,
        keeps: bool = True,
    ) -> None:
        self.bounds, self._quick, self.keeps = bounds, quick, keeps

    def words(self, text: str) -> list[str]:
        """The words."""
        found = self._quick(text) if self._quick else None
        return [text[start:end] for start, end in self.bounds(text)] if found is None else found


class Edit:
    """Changes a word: writes one character for another, then perhaps puts something before it."""

    def __init__(self, old: str = "", new: str = "", prefix: str = "", first_only: bool = False) -> None:
        self._old, self._new, self._prefix, self.first_only = old, new, prefix, first_only

    def text(self, word: str, first: bool) -> str:
        """The word changed; ``first`` says that the text begins with it."""
        if self._old:
            word = word.replace(self._old, self._new)
        if not self._prefix or word.startswith(self._prefix) or (self.first_only and not first):
            return word
        return self._prefix + word

    def word(self, word: Word) -> Word:
        """The same, with where its characters come from."""
        text, owners = word
        changed = self.text(text, first=owners[0][0] == 0)
        if len(changed) == len(text):
            return changed, owners
        return changed, [(owners[0][0], owners[0][0]), *owners]


class Letters:
    """Writes each byte of a word as a letter of GPT-2's alphabet."""

    def text(self, word: str, first: bool) -> str:
        """The word as letters."""
        return letters(word)

    def word(self, word: Word) -> Word:
        """The same, with where its characters come from."""
        text, owners = word
        spelt = [(letters(character), owner) for character, owner in zip(text, owners, strict=True)]
        return "".join(one for one, _ in spelt), [owner for one, owner in spelt for _ in one]


Step = Cut | Edit | Letters


class Cutting:
    """All steps, one after the other.

    Attributes:
        by_letters: whether the words' bytes are to be written as GPT-2's letters in the end.
        keeps: whether the words are the text, with nothing changed, added or left out.
        by_place: whether it matters where in the original text a word begins, so that only ``placed`` will do.
    """

    def __init__(self, steps: Sequence[Step], normalised: bool) -> None:
        self.by_letters = bool(steps) and isinstance(steps[-1], Letters)
        self._steps = tuple(steps[:-1] if self.by_letters else steps)
        self.keeps = all(isinstance(step, Cut) and step.keeps for step in self._steps)
        firsts = [at for at, step in enumerate(self._steps) if isinstance(step, Edit) and step.first_only]
        self.by_place = any(normalised or any(isinstance(one, Cut) for one in self._steps[:at]) for at in firsts)

    def words(self, text: str, first: bool) -> list[str]:
        """Words of a stretch of text; ``first`` says that the text begins with it."""
        found = [text]
        for step in self._steps:
            if isinstance(step, Cut):
                found = (
                    step.words(found[0]) if len(found) == 1 else [one for each in found for one in step.words(each)]
                )
            else:
                found = [step.text(word, first and not at) for at, word in enumerate(found)]
        return found

    def placed(self, word: Word) -> list[Word]:
        """Words of a stretch of text, and where their characters come from."""
        found = [word]
        for step in self._steps:
            if isinstance(step, Cut):
                found = [
                    (text[start:end], owners[start:end]) for text, owners in found for start, end in step.bounds(text)
                ]
            else:
                found = [step.word(each) for each in found]
        return found


def cut_at(matches: Bounds, size: int, behaviour: words.Behaviour, invert: bool = False) -> Bounds:
    """Words of a text of ``size`` characters in which delimiters were found; empty ones are left out."""
    pieces: list[tuple[int, int, bool]] = []
    at = 0
    for start, end in matches:
        if at < start:
            pieces.append((at, start, invert))
        pieces.append((start, end, not invert))
        at = end
    if at < size:
        pieces.append((at, size, invert))
    return [(start, end) for start, end in _BEHAVIOURS[behaviour](pieces) if start < end]


def _isolated(pieces: Iterable[tuple[int, int, bool]]) -> Bounds:
    return [(start, end) for start, end, _ in pieces]


def _removed(pieces: Iterable[tuple[int, int, bool]]) -> Bounds:
    return [(start, end) for start, end, found in pieces if not found]


def _contiguous(pieces: Iterable[tuple[int, int, bool]]) -> Bounds:
    joined: Bounds = []
    before = False
    for start, end, found in pieces:
        if joined and found == before:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
        before = found
    return joined


def _with_previous(pieces: Iterable[tuple[int, int, bool]]) -> Bounds:
    joined: Bounds = []
    before = False
    for start, end, found in pieces:
        if joined and found and not before:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
        before = found
    return joined


def _with_next(pieces: list[tuple[int, int, bool]]) -> Bounds:
    joined: Bounds = []
    after = False
    for start, end, found in reversed(pieces):
        if joined and found and not after:
            joined[-1] = (start, joined[-1][1])
        else:
            joined.append((start, end))
        after = found
    return joined[::-1]


_BEHAVIOURS: Final[dict[str, Callable[[list[tuple[int, int, bool]]], Bounds]]] = {
    "Isolated": _isolated,
    "Removed": _removed,
    "Contiguous": _contiguous,
    "MergedWithPrevious": _with_previous,
    "MergedWithNext": _with_next,
}


def _by_expression(pattern: str, behaviour: words.Behaviour, invert: bool = False) -> Cut:
    expression = Expression(pattern)
    isolated = behaviour == "Isolated" or (behaviour == "Removed" and invert)
    return Cut(
        lambda text: cut_at(expression.matches(text), len(text), behaviour, invert),
        expression.words if isolated else None,
        keeps=behaviour != "Removed",
    )


def _by_class(inside: str, behaviour: words.Behaviour) -> Cut:
    """Cuts at each character of a class."""
    found = re.compile(f"[{inside}]")
    return Cut(
        lambda text: cut_at([match.span() for match in found.finditer(text)], len(text), behaviour),
        keeps=behaviour != "Removed",
    )


def _by_text(delimiter: str, behaviour: words.Behaviour, invert: bool = False) -> Cut:
    found = re.compile(re.escape(delimiter)) if delimiter else re.compile("(?!)")
    return Cut(
        lambda text: cut_at([match.span() for match in found.finditer(text)], len(text), behaviour, invert),
        keeps=behaviour != "Removed",
    )


def _found(pattern: re.Pattern[str]) -> Cut:
    """The words are what a pattern finds; it has no groups, and no class that depends on the version of Unicode."""
    return Cut(lambda text: [match.span() for match in pattern.finditer(text)], pattern.findall, keeps=False)


@cache
def _punctuation() -> str:
    return _ASCII_SIGNS + ranges(PUNCTUATION_8)


def _metaspace(said: words.Metaspace) -> list[Step]:
    prefix = "" if said.prepend_scheme == "never" else said.replacement
    edit = Edit(" ", said.replacement, prefix, first_only=said.prepend_scheme == "first")
    mark = re.escape(said.replacement)
    # Each mark begins a word, but of several in a row only the last is joined to what follows.
    cut = _by_text(said.replacement, "MergedWithNext")
    quick = re.compile(f"{mark}?[^{mark}]+|{mark}")
    return [edit, Cut(cut.bounds, quick.findall)] if said.split else [edit]


def _whitespace() -> Cut:
    found = regex.compile(r"\w+|[^\w\s]+")
    return Cut(lambda text: [match.span() for match in found.finditer(as_of_16(text))], keeps=False)


def _fixed(length: int) -> Cut:
    return Cut(lambda text: [(at, min(at + length, len(text))) for at in range(0, len(text), length)])


def cutting(said: words.PreTokenizer | None, normalised: bool) -> Cutting:
    """How a description cuts; ``normalised`` says whether it normalises before.

    Raises:
        UserError: it can't be run exactly.
    """
    return Cutting([] if said is None else _steps(said), normalised)


def _steps(said: words.PreTokenizer) -> list[Step]:
    match said:
        case words.PreTokenizerSequence():
            return [step for one in said.pretokenizers for step in _steps(one)]
        case words.ByteLevel():
            prefix: list[Step] = [Edit(prefix=" ")] if said.add_prefix_space else []
            return [*prefix, *([_by_expression(_GPT2, "Isolated")] if said.use_regex else []), Letters()]
        case words.Metaspace():
            return _metaspace(said)
        case words.Split(pattern=words.RegexPattern(Regex=pattern)):
            return [_by_expression(pattern, said.behavior, said.invert)]
        case words.Split(pattern=words.StringPattern(String=delimiter)):
            return [_by_text(delimiter, said.behavior, said.invert)]
        case words.Whitespace():
            return [_whitespace()]
        case words.WhitespaceSplit():
            return [_found(re.compile(f"[^{SPACES}]+"))]
        case words.BertPreTokenizer():
            signs = _punctuation()
            return [_found(re.compile(f"[{signs}]|[^{SPACES}{signs}]+"))]
        case words.Digits():
            return [_by_class(ranges(NUMBERS_17), "Isolated" if said.individual_digits else "Contiguous")]
        case words.Punctuation():
            return [_by_class(_punctuation(), said.behavior)]
        case words.CharDelimiterSplit():
            return [_by_text(said.delimiter, "Removed")]
        case words.FixedLength():
            return [_fixed(said.length)]
    raise UserError(
        f"the pre-tokeniser {said.type} can't be run exactly",
        remedy="Run the file by the library: `use: tokenizers-json`.",
        code="tokenizer-not-representable",
    )
