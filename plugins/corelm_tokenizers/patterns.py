"""How text is cut into words before pairs are merged inside them.

The patterns are those of published tokenizers: of GPT-2 (Radford et al., 2019), of tiktoken's ``cl100k_base`` and
``o200k_base`` (OpenAI), of Llama 3 (Grattafiori et al., 2024, arXiv:2407.21783) and of Qwen 2 (Yang et al., 2024,
arXiv:2407.10671). Letters, digits and spaces are those of Unicode 16.0, whatever version ``regex`` has, so that a
tokenizer cuts text everywhere and always alike.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from typing import Final, Literal

import regex

from corelm_tokenizers.oniguruma import UNASSIGNED, as_of_16
from corelm_tokenizers.unicode_tables import UNASSIGNED_16, points

PatternName = Literal["gpt2", "cl100k", "llama3", "qwen2", "o200k", "none"]

# The case-insensitive letters of contractions include U+017F, which folds to s.
_CONTRACTIONS: Final = r"'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
_WORDS: Final = r"{not_break_L_N}?{L}+"
_SIGNS: Final = r" ?{other}+[\r\n]*"
_SPACES: Final = r"{S}*[\r\n]+|{S}+(?!{not_S})|{S}+"

_PATTERNS: Final[dict[str, str]] = {
    # Contractions, letters, digits, other signs (each with the space before it), white space.
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?{L}+| ?{N}+| ?{other}+|{S}+(?!{not_S})|{S}+",
    # As gpt2, but: contractions in either case, a word takes any sign before it, numbers are cut after three digits,
    # signs take the line breaks that follow, white space is cut after its last line break unless the text ends with it.
    "cl100k": rf"{_CONTRACTIONS}|{_WORDS}|{{N}}{{{{1,3}}}}|{_SIGNS}|{{S}}++\Z|{_SPACES}",
    # As cl100k, but white space at the text's end is cut too.
    "llama3": rf"{_CONTRACTIONS}|{_WORDS}|{{N}}{{{{1,3}}}}|{_SIGNS}|{_SPACES}",
    # As llama3, but each digit is a word.
    "qwen2": rf"{_CONTRACTIONS}|{_WORDS}|{{N}}|{_SIGNS}|{_SPACES}",
    # As llama3, but words are cut where lower case is followed by upper case and take a contraction at their end;
    # signs take slashes too.
    "o200k": rf"{{not_break_L_N}}?{{U}}*{{l}}+(?:{_CONTRACTIONS})?|{{not_break_L_N}}?{{U}}+{{l}}*(?:{_CONTRACTIONS})?"
    rf"|{{N}}{{{{1,3}}}}| ?{{other}}+[\r\n/]*|{_SPACES}",
}
_CLASSES: Final = {
    "L": r"\p{L}",
    "N": r"\p{N}",
    "S": r"\s",
    "other": r"[^\s\p{L}\p{N}]",
    "not_S": r"\S",
    "not_break_L_N": r"[^\r\n\p{L}\p{N}]",
    # U+0295 was lower case up to Unicode 16.0.
    "U": r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}--[\u0295]]",
    "l": r"[\p{Ll}\p{Lm}\p{Lo}\p{M}\u0295]",
}


class Splitter:
    """Cuts text into words by a named pattern."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pattern = regex.compile(_PATTERNS[name].format(**_CLASSES), regex.V1)

    def findall(self, text: str) -> list[str]:
        """The words, which one after the other are the text; bytes that are no UTF-8 may stand as surrogate escapes."""
        # In UTF-16 the characters of the first plane take two bytes, all others four.
        if text.isascii() or len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text):
            return self._quick.findall(text)
        known = as_of_16(text)
        if known is not text:
            return [text[match.start() : match.end()] for match in self._pattern.finditer(known)]
        words: list[str] = self._pattern.findall(text)
        return words

    @cached_property
    def _quick(self) -> re.Pattern[str]:
        """The same for texts in Unicode's first plane.

        The standard library's engine takes half the time of ``regex``, with classes as ranges, which it has to search
        one by one only beyond that plane.
        """
        spelt = _with_ranges(self._name, 0x10000)
        return re.compile(re.sub(r"\\x\{(\w+)\}", lambda found: rf"\u{int(found[1], 16):04x}", spelt))


@cache
def splitter(name: PatternName) -> Splitter | None:
    """What cuts text into words by this pattern; None: the text is one word."""
    return None if name == "none" else Splitter(name)


@cache
def spelt_out(name: PatternName) -> str:
    """The same pattern for the library tokenizers, with every class as ranges of code points.

    Engines carry different versions of Unicode and so disagree about thousands of letters; ranges mean the same to all.
    """
    return _with_ranges(name, 0x110000).replace(r"\Z", r"\z")


def _with_ranges(name: str, end: int) -> str:
    """A pattern with classes as ranges of the code points below ``end``."""
    letters, numbers, spaces, upper, lower = (_ranges(_CLASSES[part], end) for part in ("L", "N", "S", "U", "l"))
    return _PATTERNS[name].format(
        L=f"[{letters}]",
        N=f"[{numbers}]",
        S=f"[{spaces}]",
        U=f"[{upper}]",
        l=f"[{lower}]",
        not_S=f"[^{spaces}]",
        other=f"[^{spaces}{letters}{numbers}]",
        not_break_L_N=f"[^\\r\\n{letters}{numbers}]",
    )


@cache
def _ranges(characters: str, end: int) -> str:
    # Surrogates are in no class.
    runs = (match.span() for match in regex.compile(f"{characters}+", regex.V1).finditer(_code_points(end)))
    return "".join(f"\\x{{{first:x}}}-\\x{{{after - 1:x}}}" for first, after in runs)


@cache
def _code_points(end: int) -> str:
    """Every character at the place of its code point; those that Unicode 16.0 doesn't have as one without any class."""
    characters = list(map(chr, range(end)))
    for first, last in points(UNASSIGNED_16):
        if last < end:
            characters[first : last + 1] = UNASSIGNED * (last + 1 - first)
    return "".join(characters)
