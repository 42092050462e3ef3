"""Byte-pair encoding by the ``tokenizers`` library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import Field
from tokenizers import trainers

from corelm.kinds import END_OF_TEXT, ComponentConfig, Count
from corelm_tokenizers import library
from corelm_tokenizers.patterns import PatternName
from corelm_tokenizers.vocabulary import (
    ByteLevelTokenizer,
    Merge,
    check_room,
    check_scalars,
    pieces_of,
    too_few_pieces,
)


class LibraryBytePairTokenizer(ByteLevelTokenizer):
    """Byte-level byte-pair encoding by the ``tokenizers`` library.

    The same ids as ``bpe`` on the same merges, and the same merges from the same text; each reads what the other
    saved. Trains and encodes faster. Words are cut by the library's regular expressions, with all classes spelt out
    as ranges, since engines differ in their version of Unicode.
    """

    class Config(ComponentConfig):
        """Size of the vocabulary, and how text is cut into words."""

        vocab_size: Count = Field(32_000, ge=256, description="Number of ids: 256 bytes, merges, special tokens.")
        pattern: PatternName = Field(
            "gpt2",
            description="Cuts text into words: gpt2; cl100k (numbers of at most three digits, either case); "
            "none: a document is one word.",
        )

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """What the config asks for; training gives that or fails."""
        size: int = config.vocab_size
        return size

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Learn merges from documents.

        Raises:
            UserError: the text has fewer different pieces than ``vocab_size`` asks for.
        """
        room = check_room(self.config.vocab_size, specials)
        learner = library.untrained(self.config.pattern)
        trainer = trainers.BpeTrainer(
            vocab_size=256 + room, initial_alphabet=list(library.spelling()), show_progress=False, special_tokens=[]
        )
        learner.train_from_iterator(_checked(documents), trainer)
        merges = library.merges_of(json.loads(learner.to_str()))
        reached = len(pieces_of(merges)[0]) + len(specials)
        if reached < self.config.vocab_size:
            raise too_few_pieces(self.config.vocab_size, reached)
        self._set(merges, specials)

    def _set(self, merges: Sequence[Merge], specials: Sequence[str]) -> None:
        super()._set(merges, specials)
        self._encoder = library.with_merges(self.merges, self.config.pattern)

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Encode each text as ``encode`` does, on all processors."""
        if allow_special:
            return [self.encode(text, allow_special=True) for text in texts]
        self._trained()
        for text in texts:
            check_scalars(text)
        return [encoding.ids for encoding in self._encoder.encode_batch_fast(list(texts))]

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._encoder.encode_batch_fast([text])[0].ids
        return ids


def _checked(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        check_scalars(document)
        yield document
