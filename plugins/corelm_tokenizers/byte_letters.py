"""The letters that files write for bytes (Radford et al., 2019): each byte one that can be seen."""

from __future__ import annotations

from functools import cache


@cache
def spelling() -> str:
    """The character for each byte: itself if it prints in Latin-1, else one from U+0100 on, in the bytes' order."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [value for value in range(256) if value not in printing]
    return "".join(chr(value if value in printing else 256 + others.index(value)) for value in range(256))


def letters(text: str) -> str:
    """A text's bytes as letters; bytes that are no UTF-8 stand in it as surrogate escapes."""
    spell = spelling()
    return "".join([spell[value] for value in text.encode("utf-8", "surrogateescape")])


@cache
def byte_values() -> dict[str, int]:
    """The byte for each letter."""
    return {letter: value for value, letter in enumerate(spelling())}
