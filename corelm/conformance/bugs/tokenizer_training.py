"""Tokenizers that learn, keep or say something wrong."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pydantic import Field

from corelm.conformance.bugs.tokenizer import Pairs, join
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.tokenizer import END_OF_TEXT


@plant("no_character_is_lost", "bytes that open characters beyond U+FFFF have no id")
class BasicPlaneOnly(Pairs):
    """Three bytes at most."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(b"?" if piece[:1] >= b"\xf1" else piece for piece in map(self.piece, ids))


@plant("joins_inside_of_words", "pieces are only looked for where a word begins")
class JoinsBeginnings(Pairs):
    """The rest of the word is written byte by byte."""

    def plain(self, text: str) -> list[int]:
        words = [super(JoinsBeginnings, self).plain(word) for word in re.split("(?= )", text)]
        return [token for first, *rest in filter(None, words) for token in (first, *self.decode_bytes(rest))]


@plant("merges_in_order", "the newest merges first")
class NewestFirst(Pairs):
    """They tear what older ones would have joined."""

    def plain(self, text: str) -> list[int]:
        ids = list(self.to_bytes(text))
        for rank, pair in reversed(list(enumerate(self.pairs))):
            ids = join(ids, pair, 256 + rank)
        return ids


@plant("specials_spell_themselves", "special tokens are skipped in decoding")
class SkipsSpecials(Pairs):
    """They vanish, with the text that spelt them."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        known = set(self.specials.values())
        return super().decode_bytes([i for i in ids if i not in known])


@plant("specials_spell_themselves", "the last special token given comes first")
class TurnsSpecials(Pairs):
    """Another order than given."""

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        super().train(documents, specials[::-1])


@plant("ids_are_in_range", "an id in the middle that no piece has")
class LeavesAHole(Pairs):
    """Counted, but empty."""

    def piece(self, number: int) -> bytes:
        return b"" if number == 256 else super().piece(number)


@plant("streams_whole_characters", "what is broken off at the end is swallowed")
class SwallowsTheEnd(Pairs):
    """Streams less than it decodes."""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for number in ids:
            yield decoder.decode(self.piece(number))


@reference
class Describes(Pairs):
    """Byte pairs that can be said in the library's file, where bytes are spelt as letters (as GPT-2 does)."""

    def as_tokenizers_json(self) -> str | None:
        """Pieces, merges, special tokens."""
        pieces = [self.piece(i) for i in range(self.vocab_size)]
        plain = range(256 + len(self.pairs))
        level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [
                    {"id": i, "content": name, "special": True, "normalized": False}
                    | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
                    for name, i in self.specials.items()
                ],
                "normalizer": None,
                "pre_tokenizer": {"type": "ByteLevel", **level},
                "post_processor": None,
                "decoder": {"type": "ByteLevel", **level},
                "model": {
                    "type": "BPE",
                    "vocab": {_letters(pieces[i]): i for i in plain},
                    "merges": [[_letters(pieces[a]), _letters(pieces[b])] for a, b in self.told()],
                },
            }
        )

    def told(self) -> list[tuple[int, int]]:
        """The merges that are written down."""
        return self.pairs


def _letters(piece: bytes) -> str:
    """One letter per byte: those that can be seen are themselves, the others come after U+00FF."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in seen]
    return "".join(chr(b) if b in seen else chr(0x100 + others.index(b)) for b in piece)


@plant("described_equals_itself", "the last merges are not written down")
class DescribesLess(Describes):
    """Other readers cut text otherwise."""

    def told(self) -> list[tuple[int, int]]:
        return super().told()[:-8]


@plant("rich_texts_fill_the_vocabulary", "half of the room is left empty")
class LeavesRoom(Pairs):
    """The other half would be joined as well."""

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        super().train(documents, specials)
        self.pairs = self.pairs[: len(self.pairs) // 2]


@reference
class NamesItsSize(Pairs):
    """Byte pairs; where a text is too small for the vocabulary, the error says how large one it gives."""

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Name the size."""
        try:
            super().train(documents, specials)
        except UserError as error:
            raise UserError("too few pairs", reachable=self.reached()) from error

    def reached(self) -> int:
        """The bytes, the pairs, the special tokens."""
        return self.vocab_size


@plant("small_texts_name_their_size", "special tokens are counted twice")
class NamesMore(NamesItsSize):
    """The next error names the same."""

    def reached(self) -> int:
        return super().reached() + len(self.names)


@reference
class CutsWords(Describes):
    """Byte pairs inside of words, which are GPT-2's, cut by the library tokenizers."""

    class Config(ComponentConfig):
        """Options."""

        vocab_size: int = Field(300, ge=257, description="Ids.")
        pattern: Literal["gpt2"] = Field("gpt2", description="What cuts words.")

    def words(self, text: str) -> list[str]:
        """One after the other they are the text."""
        import tokenizers

        cut = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
        return [text[start:end] for _, (start, end) in cut]

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Of words."""
        super().train([word for document in documents for word in self.words(document)], specials)

    def plain(self, text: str) -> list[int]:
        """Word by word."""
        self.to_bytes(text)
        return [number for word in self.words(text) for number in super(CutsWords, self).plain(word)]

    def encode_bytes(self, data: bytes) -> list[int]:
        """Bytes that are no UTF-8 aren't cut."""
        try:
            return self.plain(data.decode())
        except UnicodeDecodeError:
            return super().encode_bytes(data)

    def as_tokenizers_json(self) -> str | None:
        """With the pattern."""
        told = json.loads(super().as_tokenizers_json() or "")
        told["pre_tokenizer"]["use_regex"] = True
        return json.dumps(told)


@plant("trains_on_words", "words are cut for encoding only")
class TrainsOnTexts(CutsWords):
    """Pairs across the ends of words are learnt, and never of use."""

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        Pairs.train(self, documents, specials)
