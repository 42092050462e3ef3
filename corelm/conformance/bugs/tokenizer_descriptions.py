"""Tokenizers that read descriptions otherwise than they are meant, or learn other pairs than they ought to."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from corelm.conformance.bugs.tokenizer import Pair, Pairs, join
from corelm.conformance.planted import plant, reference
from corelm.kinds.tokenizer import END_OF_TEXT, Piece


@reference
class Reads(Pairs):
    """Byte pairs; what it reads is run by the library tokenizers."""

    held: Any = None

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """Any description."""
        import tokenizers

        made, told = cls(cls.Config()), json.dumps(cls.understood(json.loads(text)))
        made.held = [tokenizers.Tokenizer.from_str(told) for _ in range(2)]
        made.held[False].encode_special_tokens = True
        return made

    @classmethod
    def understood(cls, told: dict[str, Any]) -> dict[str, Any]:
        """What is taken from a description."""
        return told

    @property
    def vocab_size(self) -> int:
        """All ids."""
        return self.held[0].get_vocab_size() if self.held else super().vocab_size

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids."""
        if self.held:
            return list(self.held[allow_special].encode(text, add_special_tokens=False).ids)
        return super().encode(text, allow_special=allow_special)

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        """Everywhere all of the text, of what was read."""
        if self.held:
            return [Piece(token, 0, len(text)) for token in self.encode(text, allow_special=allow_special)]
        return super().encode_with_spans(text, allow_special=allow_special)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text."""
        if self.held:
            return str(self.held[0].decode(list(ids), skip_special_tokens=False))
        return super().decode(ids)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """In one piece, of what was read."""
        return iter([self.decode(list(ids))]) if self.held else super().stream(ids)


@plant("descriptions_mean_what_they_say", "the normaliser is skipped")
class SkipsNormalizers(Reads):
    """Text is cut as it is."""

    @classmethod
    def understood(cls, told: dict[str, Any]) -> dict[str, Any]:
        return told | {"normalizer": None}


@plant("descriptions_mean_what_they_say", "of several cuts only the last is made")
class CutsOnce(Reads):
    """The first is forgotten."""

    @classmethod
    def understood(cls, told: dict[str, Any]) -> dict[str, Any]:
        cut = told["pre_tokenizer"] or {}
        return told | {"pre_tokenizer": cut["pretokenizers"][-1]} if "pretokenizers" in cut else told


@plant("descriptions_mean_what_they_say", "each id is decoded by itself")
class DecodesOneByOne(Reads):
    """A decoder that has to see what stands before is lost."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(super(DecodesOneByOne, self).decode([token]) for token in ids)


@plant("learns_the_commonest", "a pair counts once for each document, however often it is in there")
class CountsDocuments(Pairs):
    """Not occurrences."""

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        self.names = tuple(specials)
        lines = [list(document.encode()) for document in documents]
        for new in range(256, self.config.vocab_size - len(specials)):
            pair = self.best(
                Counter(pair for line in lines for pair in set(itertools.pairwise(line))) or Counter([(0, 0)])
            )
            self.pairs.append(pair)
            lines = [join(line, pair, new) for line in lines]


@plant("learns_the_commonest", "pairs are counted once and not again after joining")
class CountsOnce(Pairs):
    """The commonest at the beginning."""

    def best(self, counts: Counter[Pair]) -> Pair:
        first: Counter[Pair] = self.__dict__.setdefault("first", Counter(counts))
        return min(counts, key=lambda pair: (-first[pair], -counts[pair], pair))


@plant("streams_whole_characters", "a piece for each id, be it empty")
class StreamsNothing(Pairs):
    """Half a character gives an empty piece."""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        yield ""
        yield from super().stream(ids)
