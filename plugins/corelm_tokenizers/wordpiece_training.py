"""Learns the pieces of WordPiece from counted words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corelm_tokenizers.joining import join_pairs


def alphabet_of(words: Mapping[str, int], prefix: str) -> list[str]:
    """Every character of the words by code point, then those that go on inside of one, by code point."""
    opening = sorted(set().union(*words)) if words else []
    inside = sorted({character for word in words for character in word[1:]})
    return [*opening, *(prefix + character for character in inside)]


def learn_word_pieces(
    words: Mapping[str, int], room: int, prefix: str, alphabet: Sequence[str] | None = None
) -> list[str]:
    """Learn pieces by joining the pair of neighbours that occurs most often, until there are ``room``.

    That is how the library tokenizers does it; Schuster and Nakajima (2012) join the pair that makes the text likeliest
    instead, by a trainer that was never published. Ties: the pair whose left piece, then whose right piece, is older;
    the alphabet is the oldest, in the order of ``alphabet_of``. (The library draws the order of the pieces inside of a
    word by chance, and so is not the same twice; given its order this gives its pieces.)

    Args:
        words: with their frequencies.
        room: number of pieces, the alphabet included.
        prefix: opens pieces that go on inside of a word.
        alphabet: all characters as pieces in another order.

    Returns:
        pieces, the oldest first; more than ``room`` only where the alphabet is.
    """
    pieces = list(alphabet_of(words, prefix) if alphabet is None else alphabet)
    age = {piece: number for number, piece in enumerate(pieces)}

    def join(left: str, right: str) -> str:
        return left + right.removeprefix(prefix)

    def order(left: str, right: str) -> tuple[int, int]:
        # A piece is first asked for when it stands in a word, so that births come in order.
        return age.setdefault(left, len(age)), age.setdefault(right, len(age))

    split = {
        tuple([word[0], *(prefix + character for character in word[1:])]): n for word, n in words.items() if word
    }
    return pieces + join_pairs(split, room - len(pieces), join, order, frozenset(pieces))
