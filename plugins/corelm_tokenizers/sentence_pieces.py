"""What the tokenizers share that learn pieces of a text whose spaces are written ``▁``, as SentencePiece does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

import regex
from pydantic import Field

from corelm.kinds import ComponentConfig, Count
from corelm_tokenizers.fallback import BYTES
from corelm_tokenizers.formats import schema
from corelm_tokenizers.learnt_pieces import LearnsPieces, Scored

SPACE: Final = "▁"
"""U+2581, which stands for a space; a text's own comes back as a space."""
_UNKNOWN: Final = "<unk>"

# A piece is a word's letters or its signs, never both; the space before goes with what follows it. The library
# tokenizers would take a text's <unk> or <0x41> for the piece; where ``<`` is cut off nothing can spell it.
_TRAINING: Final = regex.compile(rf"{SPACE}?[\p{{L}}\p{{M}}]+|<|{SPACE}?[^{SPACE}<\p{{L}}\p{{M}}]+|{SPACE}")


class SentencePieces(LearnsPieces):
    """Learns pieces as SentencePiece does (Kudo and Richardson, 2018, arXiv:1808.06226).

    Spaces are written ``▁`` and belong to the word that follows. No piece crosses the beginning of a word, none mixes
    letters with other signs. Ids: the unknown, which nothing is written as, the 256 bytes, the pieces learnt, the
    special tokens. Characters that are too rare for a piece of their own are written as the bytes of their UTF-8; so
    every text comes back, except that U+2581 comes back as a space. No space is put before a text.
    """

    outside: ClassVar[tuple[str, ...]] = (_UNKNOWN, *BYTES)

    class Config(ComponentConfig):
        """Size of the vocabulary, and what may become a piece."""

        vocab_size: Count = Field(
            32_000, ge=257, description="Number of ids: unknown, 256 bytes, pieces, special tokens."
        )
        coverage: float = Field(
            0.9995,
            gt=0,
            le=1,
            description="Characters get a piece of their own, the commonest first, until they are this part of the "
            "text, or half of the pieces; the others are written as bytes.",
        )
        longest_piece: int = Field(16, ge=2, le=64, description="Characters of a piece at most.")

    def _words(self, document: str) -> Iterable[str]:
        words: list[str] = _TRAINING.findall(document.replace(" ", SPACE))
        return words

    def _alphabet(self, words: Counter[str], room: int) -> list[str]:
        """Characters with a piece of their own, the commonest first, of equals by code point."""
        counts: Counter[str] = Counter()
        for word, count in words.items():
            for character in word:
                counts[character] += count
        total, covered = counts.total(), 0
        chosen: list[str] = []
        # Libraries end strings with U+0000.
        for character, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
            if covered >= self.config.coverage * total or len(chosen) == max(min(1, room), room // 2):
                break
            covered += count
            if character != "\0":
                chosen.append(character)
        return chosen

    def _around(self, model: dict[str, Any], pieces: Sequence[Scored], specials: Sequence[str]) -> dict[str, Any]:
        """The description of the steps around a model."""
        space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": True}
        bracket = {"type": "Split", "pattern": {"String": "<"}, "behavior": "Isolated", "invert": False}
        steps = [bracket, space] if model["type"] == "Unigram" else [space]
        return schema.description(
            model,
            pre_tokenizer=schema.sequence("pretokenizers", steps),
            decoder=schema.sentence_decoder(prefix=False, byte_fallback=True),
            added=[schema.added_token(len(pieces) + number, name) for number, name in enumerate(specials)],
        )
