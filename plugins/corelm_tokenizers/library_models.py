"""Models by the libraries: the same pieces, joined and chosen between by tokenizers or sentencepiece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tokenizers

from corelm.kinds import library
from corelm_tokenizers.formats import protobuf
from corelm_tokenizers.formats.sentencepiece_model import KINDS, MODELS
from corelm_tokenizers.scored_pairs import ScoredPairs
from corelm_tokenizers.unigram import Unigram
from corelm_tokenizers.wordpiece import WordPiece

Kinds = Sequence[tuple[str, float, str]]
"""Spelling, score and kind of each piece."""


class TokenizersUnigram(Unigram):
    """Unigram by tokenizers."""

    def __init__(self, pieces: Sequence[str], scores: Sequence[float], *, unknown: int, every_byte: bool) -> None:
        super().__init__(pieces, scores, unknown=unknown, every_byte=every_byte)
        self._library = tokenizers.models.Unigram(
            list(zip(pieces, scores, strict=True)), unk_id=unknown, byte_fallback=every_byte
        )

    def ids(self, word: str) -> tuple[int, ...]:
        """The library's."""
        return tuple(one.id for one in self._library.tokenize(word))


class TokenizersWordPiece(WordPiece):
    """WordPiece by tokenizers."""

    def __init__(self, pieces: Sequence[str], *, unknown: int, prefix: str = "##", longest_word: int = 100) -> None:
        super().__init__(pieces, unknown=unknown, prefix=prefix, longest_word=longest_word)
        self._library = tokenizers.models.WordPiece(
            {piece: token for token, piece in enumerate(pieces)},
            unk_token=pieces[unknown],
            continuing_subword_prefix=prefix,
            max_input_chars_per_word=longest_word,
        )

    def ids(self, word: str) -> tuple[int, ...]:
        """The library's."""
        return tuple(one.id for one in self._library.tokenize(word))


class SentencePieceUnigram(Unigram):
    """Unigram by sentencepiece."""

    def __init__(self, pieces: Kinds, *, every_byte: bool) -> None:
        kinds = [kind for _, _, kind in pieces]
        super().__init__(
            [piece for piece, _, _ in pieces],
            [score for _, score, _ in pieces],
            unknown=kinds.index("unknown"),
            every_byte=every_byte,
            single=True,
        )
        self._library = processor(pieces, "SentencePieceUnigram", every_byte=every_byte)

    def ids(self, word: str) -> tuple[int, ...]:
        """The library's."""
        return tuple(self._library.encode(word))


class SentencePiecePairs(ScoredPairs):
    """Scored pairs by sentencepiece."""

    def __init__(self, pieces: Kinds, *, every_byte: bool) -> None:
        kinds = [kind for _, _, kind in pieces]
        super().__init__(
            [piece for piece, _, _ in pieces],
            [score for _, score, _ in pieces],
            unknown=kinds.index("unknown"),
            every_byte=every_byte,
        )
        self._library = processor(pieces, "SentencePieceBPE", every_byte=every_byte)

    def ids(self, word: str) -> tuple[int, ...]:
        """The library's."""
        return tuple(self._library.encode(word))


def processor(pieces: Kinds, model: str, *, every_byte: bool) -> Any:
    """Sentencepiece's own for these pieces; it changes nothing in a text but that spaces become ``▁``.

    Raises:
        UserError: the library isn't installed.
    """
    numbers = {name: number for number, name in KINDS.items()}
    models = {name: number for number, name in MODELS.items()}
    messages: list[tuple[int, dict[int, Any]]] = [
        (1, {1: piece.encode(), 2: float(score), 3: numbers[kind]}) for piece, score, kind in pieces
    ]
    messages.append((2, {3: models[model], 35: int(every_byte)}))
    messages.append((3, {1: b"identity", 3: 0, 4: 0, 5: 1}))
    data = b"".join(
        protobuf.field(number, b"".join(protobuf.field(key, value) for key, value in message.items()))
        for number, message in messages
    )
    sentencepiece = library("sentencepiece", extra="tokenizers", by="a tokenizer of sentencepiece's")
    return sentencepiece.SentencePieceProcessor(model_proto=data)
