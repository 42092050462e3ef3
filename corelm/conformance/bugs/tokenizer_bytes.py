"""Tokenizers that lose bytes, or say something wrong about where in a text an id stands and what is put around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

from corelm.conformance.bugs.tokenizer import Pairs
from corelm.conformance.bugs.tokenizer_training import Describes
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.tokenizer import END_OF_TEXT, Piece


@plant("every_byte_comes_back", "a byte that is no UTF-8 is dropped where it follows a line end")
class DropsAByte(Pairs):
    """In a rare case."""

    def encode_bytes(self, data: bytes) -> list[int]:
        kept = [byte for at, byte in enumerate(data) if byte < 0xF8 or data[max(at - 1, 0)] not in b"\n\r "]
        return super().encode_bytes(bytes(kept))


@plant("every_byte_comes_back", "what is no UTF-8 becomes U+FFFD")
class ReplacesBytes(Pairs):
    """errors="replace"."""

    def encode_bytes(self, data: bytes) -> list[int]:
        return self.encode(data.decode("utf-8", errors="replace"))


@plant("every_byte_comes_back", "what is no UTF-8 is encoded in silence by one that can't write it")
class IgnoresBytes(Pairs):
    """errors="ignore"."""

    @property
    def every_byte(self) -> bool:
        return False

    def encode_bytes(self, data: bytes) -> list[int]:
        return self.encode(data.decode("utf-8", errors="ignore"))


@plant("every_byte_comes_back", "all bytes have ids, and what is no UTF-8 is refused")
class RefusesBytes(Pairs):
    """errors="strict"."""

    @property
    def every_byte(self) -> bool:
        return False

    def encode_bytes(self, data: bytes) -> list[int]:
        try:
            return self.encode(data.decode())
        except UnicodeDecodeError as error:
            raise UserError(f"byte {error.start} is no UTF-8") from error


@plant("every_byte_comes_back", "the bytes of a text are written one by one")
class WritesSingleBytes(Pairs):
    """Not what the text gives."""

    def encode_bytes(self, data: bytes) -> list[int]:
        return list(data)


@plant("spans_cover_the_text", "spans count bytes")
class SpansInBytes(Pairs):
    """Not characters."""

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        spans, start = [], 0
        for token in self.encode(text, allow_special=allow_special):
            end = start + len(self.piece(token))
            spans.append(Piece(token, start, end))
            start = end
        return spans


@plant("spans_cover_the_text", "spans count units of UTF-16")
class SpansInUtf16(Pairs):
    """Two for each emoji."""

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        units = [len(text[:place].encode("utf-16-le")) // 2 for place in range(len(text) + 1)]
        found = super().encode_with_spans(text, allow_special=allow_special)
        return [Piece(token, units[start], units[end]) for token, start, end in found]


@plant("spans_cover_the_text", "an id that ends inside of a character doesn't cover it")
class SpansWholeCharacters(Pairs):
    """Halves belong to nobody."""

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        spans, read, start = [], b"", 0
        for token in self.encode(text, allow_special=allow_special):
            read += self.piece(token)
            end = len(read.decode(errors="ignore"))
            spans.append(Piece(token, start, end))
            start = end
        return spans


@plant("spans_cover_the_text", "special tokens have the span of what follows them")
class SpansSkipSpecials(Pairs):
    """They are taken to be empty."""

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        special, shift, spans = set(self.specials.values()), 0, []
        for token, start, end in super().encode_with_spans(text, allow_special=allow_special):
            if token in special:
                shift += end - start
                end = start
            spans.append(Piece(token, max(0, start - shift), max(0, end - shift)))
        return spans


@plant("nothing_is_put_around", "every text begins with the token that ends texts")
class BeginsEveryText(Pairs):
    """Also the second half of one."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return [self.specials[END_OF_TEXT], *super().encode(text, allow_special=allow_special)]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return super().decode_bytes([token for token in ids if token != self.specials[END_OF_TEXT]])


@plant("nothing_is_put_around", "the ids around a text are those of ordinary pieces")
class FramesWithPieces(Pairs):
    """Not special."""

    @property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (0,), ()


@reference
class ReadsFlags(Describes):
    """Byte pairs that mind how special tokens are marked in a description."""

    flags: dict[str, Any]

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """Its own description, whatever the flags."""
        data, made = json.loads(text), cls(cls.Config())
        if "\u0100" not in data["model"]["vocab"]:
            return None  # no pairs of bytes
        plain = {piece: number for piece, number in data["model"]["vocab"].items() if number < 256}
        added = data["added_tokens"]
        made.flags = {key: added[0][key] for key in ("normalized", "lstrip", "rstrip", "single_word")}
        spelt = dict(plain)
        for left, right in data["model"]["merges"]:
            made.pairs.append((spelt[left], spelt[right]))
            spelt[left + right] = 255 + len(made.pairs)
        made.names = tuple(token["content"] for token in added)
        return made


@plant("no_injection_by_flags", "special tokens that are found after normalising are found always")
class FindsNormalised(ReadsFlags):
    """The second search forgets what is allowed."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        found = getattr(self, "flags", {}).get("normalized", False)
        return super().encode(text, allow_special=allow_special or found)
