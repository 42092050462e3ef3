"""How text is cut into words before pairs are merged inside them."""

from __future__ import annotations

from functools import cache
from typing import Final, Literal

import regex

PatternName = Literal["gpt2", "cl100k", "none"]

_PATTERNS: Final[dict[str, str]] = {
    # Contractions, letters, digits, other signs (each with the space before it), white space. Radford et al., 2019.
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?{L}+| ?{N}+| ?{other}+|{S}+(?!{not_S})|{S}+",
    # As gpt2, but: contractions in either case, a word takes any sign before it, numbers are cut after three digits,
    # signs take the line breaks that follow. The case-insensitive letters include U+017F, which folds to s.
    "cl100k": r"'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{not_break_L_N}?{L}+|{N}{{1,3}}"
    r"| ?{other}+[\r\n]*|{S}*[\r\n]|{S}+(?!{not_S})|{S}+",
}


def splitter(name: PatternName) -> regex.Pattern[str] | None:
    """The pattern whose matches, one after the other, are the words of a text; None: the text is one word."""
    if name == "none":
        return None
    classes = {"L": r"\p{L}", "N": r"\p{N}", "S": r"\s", "other": r"[^\s\p{L}\p{N}]", "not_S": r"\S"}
    return regex.compile(_PATTERNS[name].format(**classes, not_break_L_N=r"[^\r\n\p{L}\p{N}]"))


@cache
def spelt_out(name: PatternName) -> str:
    """The same pattern with every class as ranges of code points.

    Engines carry different versions of Unicode and so disagree about thousands of letters; ranges mean the same to all.
    """
    letters, numbers, spaces = _ranges(r"\p{L}"), _ranges(r"\p{N}"), _ranges(r"\s")
    classes = {"L": f"[{letters}]", "N": f"[{numbers}]", "S": f"[{spaces}]", "not_S": f"[^{spaces}]"}
    return _PATTERNS[name].format(
        **classes, other=f"[^{spaces}{letters}{numbers}]", not_break_L_N=f"[^\\r\\n{letters}{numbers}]"
    )


@cache
def _ranges(characters: str) -> str:
    everything = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    runs = regex.findall(f"{characters}+", everything)
    return "".join(f"\\x{{{ord(run[0]):x}}}-\\x{{{ord(run[-1]):x}}}" for run in runs)
