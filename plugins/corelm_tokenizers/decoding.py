"""Ids back to text, as a ``tokenizer.json`` says."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from corelm.errors import UserError
from corelm_tokenizers.spelling import Speller, stripped

Added = Mapping[int, tuple[str, bool]]
"""Of the added tokens the text, and whether they are special."""


class Decoding:
    """Turns ids back into bytes and text.

    A token's bytes are those that it has inside of a text, a word's leading space included; where the decoder takes
    off the space before a text's first word, so do ``decode`` and ``stream``. Special tokens are spelt as they are.

    Args:
        decoder: as the file has it.
        pieces: spelling of each id in the file's alphabet.
        added: tokens that were added to the model's.
    """

    def __init__(self, decoder: Mapping[str, Any] | None, pieces: Sequence[str], added: Added) -> None:
        self._speller = Speller(decoder)
        self._spelt, self._added = tuple(pieces), dict(added)
        self._pieces = _Bytes(self._spell)
        self.specials = {content: number for number, (content, special) in added.items() if special}

    def __len__(self) -> int:
        return len(self._spelt)

    @property
    def strange(self) -> str | None:
        """What can't be done exactly; None: nothing."""
        return self._speller.strange

    def spelt(self, token: int) -> str:
        """A token in the file's alphabet."""
        return self._spelt[token]

    def _spell(self, number: int, first: bool = False, last: bool = False) -> bytes:
        content, special = self._added.get(number, ("", False))
        if special:
            return content.encode()
        return (self._speller.added if content else self._speller.piece)(self._spelt[number], first, last)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Ids to bytes.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        return b"".join([self._pieces[self._known(token)] for token in ids])

    def decode(self, ids: Sequence[int]) -> str:
        """Text; the same as ``stream`` in one piece, but quicker."""
        if not len(ids) or self._speller.looks_ahead:
            return "".join(self.stream(ids))
        first = self._spell(self._known(ids[0]), first=True)
        text = (first + self.decode_bytes(ids[1:])).decode("utf-8", errors="replace")
        for character, start, _ in self._speller.strip:
            text = stripped(text, character, start, 0)
        return text

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text piece by piece; a piece ends at a character's end."""
        pieces = self._read(ids)
        if any(stop for _, _, stop in self._speller.strip):
            whole = "".join(pieces)
            for character, start, stop in self._speller.strip:
                whole = stripped(whole, character, start, stop)
            pieces = iter([whole])
        else:
            for character, start, _ in self._speller.strip:
                pieces = _without(pieces, character, start)
        yield from (piece for piece in pieces if piece)

    def _read(self, ids: Iterable[int]) -> Iterator[str]:
        """The UTF-8 reading of the spelt ids."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for piece in self._bytes(ids):
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)

    def _bytes(self, ids: Iterable[int]) -> Iterator[bytes]:
        """Bytes of each id at its place in the text."""
        if not self._speller.looks_ahead:
            for place, token in enumerate(ids):
                yield self._pieces[self._known(token)] if place else self._spell(self._known(token), first=True)
            return
        held: int | None = None
        first = True
        for token in ids:
            if held is not None:
                yield self._spell(held, first)
                first = False
            held = self._known(token)
        if held is not None:
            yield self._spell(held, first, last=True)

    def _known(self, token: int) -> int:
        if not 0 <= token < len(self._spelt):
            raise UserError(
                f"token id {int(token)} is outside the vocabulary of {len(self._spelt)} ids",
                remedy="Decode with the tokenizer that the ids were made with.",
                code="token-id-out-of-range",
            )
        return token


class _Bytes(dict[int, bytes]):
    """Bytes of ids, found when first asked for: of a large vocabulary most never are."""

    def __init__(self, spell: Callable[[int], bytes]) -> None:
        super().__init__()
        self._spell = spell

    def __missing__(self, number: int) -> bytes:
        spelt = self[number] = self._spell(number)
        return spelt


def _without(pieces: Iterable[str], character: str, count: int) -> Iterator[str]:
    """Text in pieces without so many of a character, at most, at its start."""
    for piece in pieces:
        if count and piece:
            gone = min(count, len(piece) - len(piece.lstrip(character)))
            # The text begins where something else than the character stands.
            count = count - gone if gone == len(piece) else 0
            piece = piece[gone:]
        yield piece
