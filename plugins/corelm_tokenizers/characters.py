"""Text as its characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import ComponentConfig, Count
from corelm_tokenizers.fallback import BYTES, byte_pieces, bytes_of, spans_of_pieces
from corelm_tokenizers.formats import schema
from corelm_tokenizers.learnt_pieces import LearnsPieces, Scored
from corelm_tokenizers.model import Model, Spans


class Characters:
    """Each character is a piece, or the bytes of its UTF-8 where it has none.

    Args:
        pieces: ``<0x00>`` … ``<0xFF>`` and single characters.
    """

    unknown = None
    every_byte = True

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        self._bytes = byte_pieces(self.pieces)
        self._known = {piece: (token,) for token, piece in enumerate(self.pieces) if len(piece) == 1}

    def ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word."""
        known, numbers = self._known, self._bytes
        return tuple(token for c in word for token in known.get(c) or bytes_of(c, numbers))

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """Characters of the word that each of its ids covers."""
        return spans_of_pieces(word, ids, self.pieces, self._bytes)


class CharacterTokenizer(LearnsPieces):
    """One id per character, bytes for rare ones.

    The commonest characters of the corpus have an id, the others are written as the bytes of their UTF-8. So every text
    can be written and comes back, and there is no unknown. Ids: the 256 bytes, the characters, the
    commonest first, of equals by code point, and the special tokens. Known as character-level modelling (Graves, 2013,
    arXiv:1308.0850).
    """

    lossy: ClassVar[bool] = False
    model_type: ClassVar[str] = "BPE"
    outside: ClassVar[tuple[str, ...]] = BYTES

    class Config(ComponentConfig):
        """Size of the vocabulary."""

        vocab_size: Count = Field(512, ge=256, description="Number of ids: 256 bytes, characters, special tokens.")

    def _words(self, document: str) -> Iterable[str]:
        return document

    def _learn(self, words: Counter[str], room: int) -> Sequence[Scored]:
        return [(c, 0.0) for c, _ in sorted(words.items(), key=lambda one: (-one[1], one[0]))[:room]]

    def _described(self, pieces: Sequence[Scored], specials: Sequence[str]) -> dict[str, Any]:
        vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
        return schema.description(
            schema.pairs_model(vocabulary, ()) | {"byte_fallback": True},
            decoder=schema.sequence("decoders", [{"type": "ByteFallback"}, {"type": "Fuse"}]),
            added=[schema.added_token(len(pieces) + number, name) for number, name in enumerate(specials)],
        )

    def _model(self, pieces: Sequence[Scored]) -> Model:
        return Characters([piece for piece, _ in pieces])

    @classmethod
    def _read(cls, data: Any) -> tuple[list[Scored], dict[str, Any]]:
        return [(piece, 0.0) for piece in data["model"]["vocab"]], {}
