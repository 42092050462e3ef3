"""Tokenizers that are wrong in one way."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer

Pair = tuple[int, int]
_FIRST_BYTE = "\u0100"
"""How byte 0 is spelt in descriptions of byte pairs."""


@reference
class Pairs(Tokenizer):
    """Byte pairs, in the plainest way: the whole text is one word."""

    class Config(ComponentConfig):
        """Options."""

        vocab_size: int = Field(300, ge=257, description="Ids.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pairs: list[Pair] = []
        self.names: tuple[str, ...] = (END_OF_TEXT,)

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """As asked for."""
        return int(config.vocab_size)

    @property
    def merges(self) -> list[Pair]:
        """Pairs of ids."""
        return self.pairs

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Join the commonest pair, again and again."""
        self.names = tuple(specials)
        lines = [list(document.encode()) for document in documents]
        for new in range(256, self.config.vocab_size - len(specials)):
            counts = Counter(pair for line in lines for pair in itertools.pairwise(line))
            if not counts:
                raise UserError("too few pairs")
            pair = self.best(counts)
            self.pairs.append(pair)
            lines = [join(line, pair, new) for line in lines]

    def best(self, counts: Counter[Pair]) -> Pair:
        """The commonest; of equals the smallest."""
        return min(counts, key=lambda pair: (-counts[pair], pair))

    @property
    def vocab_size(self) -> int:
        """All ids."""
        return 256 + len(self.pairs) + len(self.names)

    @property
    def specials(self) -> dict[str, int]:
        """After the pairs."""
        return {name: 256 + len(self.pairs) + place for place, name in enumerate(self.names)}

    def plain(self, text: str) -> list[int]:
        """Text without special tokens."""
        return self.merged(list(self.to_bytes(text)))

    def merged(self, ids: list[int]) -> list[int]:
        """Bytes, joined."""
        for rank, pair in enumerate(self.pairs):
            ids = join(ids, pair, 256 + rank)
        return ids

    def to_bytes(self, text: str) -> bytes:
        """UTF-8."""
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"a lone surrogate at offset {error.start}") from error

    @property
    def every_byte(self) -> bool:
        """Each has an id."""
        return True

    def encode_bytes(self, data: bytes) -> list[int]:
        """The same merges."""
        return self.merged(list(data))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Cut at special tokens where they are allowed."""
        if allow_special:
            for name, number in self.specials.items():
                if name in text:
                    left, right = text.split(name, 1)
                    return [*self.encode(left, allow_special=True), number, *self.encode(right, allow_special=True)]
        return self.plain(text)

    def piece(self, number: int) -> bytes:
        """Bytes of one id."""
        if number < 0 or number >= self.vocab_size:
            raise UserError(f"id {number}")
        if number < 256:
            return bytes([number])
        if number - 256 < len(self.pairs):
            left, right = self.pairs[number - 256]
            return self.piece(left) + self.piece(right)
        return self.names[number - 256 - len(self.pairs)].encode()

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Join."""
        return b"".join(map(self.piece, ids))

    def save(self, folder: Path) -> None:
        """JSON."""
        (folder / "pairs.json").write_text(json.dumps({"pairs": self.pairs, "names": self.names}))

    @classmethod
    def load(cls, config: Any, folder: Path) -> Self:
        """JSON."""
        loaded, data = cls(config), json.loads((folder / "pairs.json").read_text())
        loaded.pairs, loaded.names = [(a, b) for a, b in data["pairs"]], tuple(data["names"])
        return loaded


def join(ids: list[int], pair: Pair, new: int) -> list[int]:
    """Replace a pair wherever it is, leftmost first."""
    joined: list[int] = []
    at = 0
    while at < len(ids):
        if tuple(ids[at : at + 2]) == pair:
            joined.append(new)
            at += 2
        else:
            joined.append(ids[at])
            at += 1
    return joined


@plant("round_trip", "the text is stripped of spaces at both ends")
class Strips(Pairs):
    """strip()."""

    def to_bytes(self, text: str) -> bytes:
        return super().to_bytes(text.strip())


@plant("round_trip", "line ends are unified without saying so")
class UnifiesLineEnds(Pairs):
    """CRLF."""

    def to_bytes(self, text: str) -> bytes:
        return super().to_bytes(text.replace("\r\n", "\n"))


@plant("round_trip", "one token at a time is decoded to text")
class DecodesTokenwise(Pairs):
    """Breaks characters."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.piece(i).decode("utf-8", errors="replace") for i in ids)


@plant("ids_are_in_range", "the vocabulary forgets the special tokens")
class ForgetsSpecials(Pairs):
    """Too small."""

    @property
    def vocab_size(self) -> int:
        return 256 + len(self.pairs)

    def piece(self, number: int) -> bytes:
        return b"" if number >= self.vocab_size else super().piece(number)


@plant("no_memory", "a cache keyed on lower case")
class LowerCaseCache(Pairs):
    """Returns a relative's ids."""

    def plain(self, text: str) -> list[int]:
        cache: dict[str, list[int]] = self.__dict__.setdefault("cache", {})
        return cache.setdefault(text.lower(), super().plain(text))


@plant("batches_agree", "rows are padded inside of the ids")
class PadsInside(Pairs):
    """Zeros."""

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        rows = super().encode_batch(texts, allow_special=allow_special)
        width = max(map(len, rows))
        return [row + [0] * (width - len(row)) for row in rows]


@plant("bytes_concatenate", "a leading space is taken off")
class DropsLeadingSpace(Pairs):
    """As if it had been added."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return super().decode_bytes(ids).removeprefix(b" ")


@plant("canonical", "decoding cleans up spaces before full stops (tokenizers#1543)")
class CleansUp(Pairs):
    """clean_up_tokenization_spaces."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return super().decode_bytes(ids).replace(b" .", b".")


@plant("no_injection", "special tokens are always recognised")
class AlwaysSpecial(Pairs):
    """User text ends the document."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return super().encode(text, allow_special=True)


@plant("streams_whole_characters", "each token is decoded on its own")
class StreamsTokens(Pairs):
    """Half characters."""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        for number in ids:
            yield self.piece(number).decode("utf-8", errors="replace")


@plant("merges_in_order", "of overlapping pairs the last is joined first")
class FromTheRight(Pairs):
    """aaa becomes a, aa."""

    def plain(self, text: str) -> list[int]:
        ids = list(self.to_bytes(text))
        for rank, (left, right) in enumerate(self.pairs):
            ids = join(ids[::-1], (right, left), 256 + rank)[::-1]
        return ids


@plant("merges_in_order", "the longest piece first, whatever its rank")
class LongestFirst(Pairs):
    """Greedy."""

    def plain(self, text: str) -> list[int]:
        pieces = {self.piece(i): i for i in range(256 + len(self.pairs))}
        rest, ids = self.to_bytes(text), []
        while rest:
            size = max(n for n in range(1, len(rest) + 1) if rest[:n] in pieces)
            ids.append(pieces[rest[:size]])
            rest = rest[size:]
        return ids


@plant("saves_as_json", "merges are sorted on saving")
class SortsMerges(Pairs):
    """Ranks are lost."""

    def save(self, folder: Path) -> None:
        (folder / "pairs.json").write_text(json.dumps({"pairs": sorted(self.pairs), "names": self.names}))

    def piece(self, number: int) -> bytes:
        try:
            return super().piece(number)
        except RecursionError:
            return b"?"


@plant("training_ignores_order", "of equals the first seen")
class FirstSeen(Pairs):
    """Ties by insertion."""

    def best(self, counts: Counter[Pair]) -> Pair:
        return counts.most_common(1)[0][0]


@plant("size_is_known_before", "one id less is announced than training gives")
class OneTooFew(Pairs):
    """Off by one."""

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        return int(config.vocab_size) - 1


@plant("surrogates_are_refused", "what UTF-8 can't say becomes a question mark")
class QuestionMark(Pairs):
    """Replaces."""

    def to_bytes(self, text: str) -> bytes:
        return text.encode(errors="replace")


@plant("same_in_a_fresh_process")
class HashedOrder(Pairs):
    """Ties are broken by hash(); only another process shows it."""

    def best(self, counts: Counter[Pair]) -> Pair:
        return min(counts, key=lambda pair: (-counts[pair], hash(str(pair))))


@reference
class MadeElsewhere(Pairs):
    """Byte pairs that can't be learnt here, only read."""

    trainable = False

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Refuse."""
        raise UserError("made elsewhere")

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """Pairs out of the pieces that the file names."""
        described, made = json.loads(text), cls(cls.Config())
        if _FIRST_BYTE not in described["model"]["vocab"]:
            return None  # no pairs of bytes
        Pairs.train(
            made, sorted(described["model"]["vocab"]), [token["content"] for token in described["added_tokens"]]
        )
        return made


@plant("training_is_refused", "does nothing, in silence")
class TrainsInSilence(MadeElsewhere):
    """No word."""

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        pass
