"""What the byte-pair encodings share: their config, and training up to the size that it asks for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import END_OF_TEXT, ComponentConfig, Count
from corelm_tokenizers.patterns import PatternName
from corelm_tokenizers.vocabulary import (
    ByteLevelTokenizer,
    Merge,
    check_room,
    check_scalars,
    pieces_of,
    too_few_pieces,
)


class LearnsMerges(ByteLevelTokenizer):
    """Learns merges of bytes from text."""

    family: ClassVar[str] = "bpe"
    """Parts of one family read each other's files, and encode alike."""

    class Config(ComponentConfig):
        """Size of the vocabulary, and how text is cut into words."""

        vocab_size: Count = Field(32_000, ge=256, description="Number of ids: 256 bytes, merges, special tokens.")
        pattern: PatternName = Field(
            "gpt2",
            description="Cuts text into words as published tokenizers do: gpt2; cl100k and llama3 (numbers of at "
            "most three digits, contractions in either case; cl100k keeps white space at the end together); qwen2 "
            "(each digit alone); o200k (also cut where upper case follows lower case); none: a document is one word.",
        )

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """What the config asks for; training gives that or fails."""
        size: int = config.vocab_size
        return size

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Learn merges from documents; see the class.

        Raises:
            UserError: the text has fewer different pieces than ``vocab_size`` asks for.
        """
        merges = self._learn(_checked(documents), check_room(self.config.vocab_size, specials))
        reached = len(pieces_of(merges)[0]) + len(specials)
        if reached < self.config.vocab_size:
            raise too_few_pieces(self.config.vocab_size, reached)
        self._set(merges, specials)

    @abstractmethod
    def _learn(self, documents: Iterable[str], room: int) -> list[Merge]:
        """At most ``room`` merges, in the order in which they are learnt."""


def _checked(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        check_scalars(document)
        yield document
