"""Learns the pieces of byte-pair encoding in SentencePiece's manner from counted words."""

from __future__ import annotations

from collections.abc import Mapping

from corelm_tokenizers.joining import join_pairs


def learn_scored_pairs(words: Mapping[str, int], room: int, alphabet: frozenset[str], longest: int = 16) -> list[str]:
    """Learn at most ``room`` pieces of several characters, in the order in which they are joined.

    Each step joins the pair of neighbours that occurs most often; ties: the shorter piece, then the first by code
    point, as sentencepiece has it. No piece is longer than ``longest`` characters, none holds a character outside of
    the alphabet.

    Args:
        words: with their frequencies; pieces never cross their ends.
        room: number of pieces.
        alphabet: characters that have a piece of their own.
        longest: characters of a piece.
    """

    def join(left: str, right: str) -> str | None:
        joined = left + right
        known = (len(left) > 1 or left in alphabet) and (len(right) > 1 or right in alphabet)
        return joined if known and len(joined) <= longest else None

    def order(left: str, right: str) -> tuple[int, str, int]:
        return len(left) + len(right), left + right, len(left)

    return join_pairs({tuple(word): count for word, count in words.items()}, room, join, order)
