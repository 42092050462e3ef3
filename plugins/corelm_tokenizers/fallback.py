"""Pieces for single bytes, with which a vocabulary of characters can write everything."""

from __future__ import annotations

from collections.abc import Sequence

from corelm.errors import UserError
from corelm_tokenizers.model import Spans, spans_of_bytes

BYTES: tuple[str, ...] = tuple(f"<0x{value:02X}>" for value in range(256))
"""Spelling of each byte's piece."""

_WANTED = frozenset(BYTES)


def byte_pieces(pieces: Sequence[str]) -> tuple[int, ...]:
    """The id of each byte's piece.

    Raises:
        UserError: one of them is missing.
    """
    numbers = {piece: number for number, piece in enumerate(pieces) if piece in _WANTED}
    missing = [piece for piece in BYTES if piece not in numbers]
    if missing:
        raise UserError(
            f"the vocabulary falls back to bytes, but has no piece {missing[0]} ({len(missing)} are missing)",
            remedy="Give all 256, <0x00> … <0xFF>, or turn the fallback to bytes off.",
            code="bytes-missing",
        )
    return tuple(numbers[piece] for piece in BYTES)


def bytes_of(text: str, numbers: Sequence[int]) -> list[int]:
    """Ids of a text's bytes; bytes that are no UTF-8 stand in it as surrogate escapes."""
    return [numbers[value] for value in text.encode("utf-8", "surrogateescape")]


def spans_of_pieces(word: str, ids: Sequence[int], pieces: Sequence[str], numbers: Sequence[int] | None) -> Spans:
    """Characters of the word that each of its ids covers, when none is unknown."""
    single = frozenset(numbers or ())
    return spans_of_bytes(
        word, (1 if token in single else len(pieces[token].encode("utf-8", "surrogateescape")) for token in ids)
    )
