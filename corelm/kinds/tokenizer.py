"""Kind ``tokenizer``: text to ids and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from corelm import registration
from corelm.errors import UserError
from corelm.kinds.component import Component

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"


class Piece(NamedTuple):
    """An id, and the characters of the text, from ``start`` up to ``end``, that it stands for."""

    id: int
    start: int
    end: int


class Tokenizer(Component):
    """Maps text to ids and back.

    Built as ``Part(config)``: untrained unless the part needs no training. ``train`` and ``load`` make it usable.

    Contract, for every string of Unicode scalar values:
        * ``decode(encode(s)) == normalise(s)``; ``normalise`` is the identity unless ``lossy``, and idempotent
          where nothing becomes ``unknown``.
        * Ids are exactly ``0 … vocab_size − 1``, special tokens included.
        * ``encode`` depends on nothing but its text; text never becomes a special token unless
          ``allow_special``, whatever it spells.
        * ``decode_bytes`` of a concatenation is the concatenation of ``decode_bytes``, ``decode`` is its UTF-8
          reading with replacement characters; ``lossy`` ones may take spaces off its ends that encoding put there.
        * Where ``every_byte``, ``decode_bytes(encode_bytes(b)) == b`` for all bytes; everywhere
          ``encode_bytes(s.encode()) == encode(s)``.
        * ``encode_with_spans`` gives the ids of ``encode`` with spans in the text as it was given: in order, inside
          of the text, and covering it where nothing is lost. An id that is a part of a character has that
          character's span.
        * ``frame`` are special tokens; ``encode`` never adds them, so nothing encodes to nothing.
        * ``stream`` yields pieces whose concatenation is ``decode``, never half a character, never empty.
        * Training depends on the multiset of documents only, not on their order or on hash seeds.
        * Saving is plain JSON, the same bytes every time; loading gives the same encodings.
        * One that is not ``trainable`` comes from ``from_tokenizers_json``, ``from_files`` or ``load``; ``train`` raises
          ``UserError``.
        * What ``to_files`` wrote ``from_files`` reads to the same ids; what a format can't say exactly is a
          ``UserError``, and nothing is written. A format that is written is read, too, as its makers' programs write it.
    Errors: lone surrogates raise ``UserError`` naming the offset; so do bytes that are no UTF-8 unless
    ``every_byte``.
    """

    kind: ClassVar[str] = "tokenizer"
    lossy: ClassVar[bool] = False
    trainable: ClassVar[bool] = True
    """Whether it can learn from text; false where it only holds what was made elsewhere."""
    library: ClassVar[str | None] = None
    """The library that does the work; None where it is written here."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """Vocabulary size that training under ``config`` with these special tokens yields, them included."""

    @abstractmethod
    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Learn from documents; ``specials`` are appended to the vocabulary in this order.

        Raises:
            UserError: the text has fewer different pieces than the vocabulary asks for.
        """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids."""

    @property
    @abstractmethod
    def specials(self) -> dict[str, int]:
        """Special tokens and their ids."""

    @abstractmethod
    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids."""

    @abstractmethod
    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Ids to bytes; special tokens give their spelling.

        Raises:
            UserError: an id is outside the vocabulary.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the tokenizer's own files into an existing folder."""

    @classmethod
    @abstractmethod
    def load(cls, config: Any, folder: Path) -> Self:
        """Read what ``save`` wrote."""

    def as_tokenizers_json(self) -> str | None:
        """The same tokenizer as a ``tokenizer.json`` of the tokenizers library; None where it can't be said."""
        return None

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """A tokenizer that encodes as this ``tokenizer.json`` says; None where this part can't."""
        return None

    @classmethod
    def from_files(cls, path: Path) -> Tokenizer | None:
        """The tokenizer that somebody else's file, or folder of files, holds; None where this part knows none there.

        Args:
            path: a file of any name, or a folder; what it is is seen from its content.

        Raises:
            UserError: it is of a format that this part knows, but damaged, or says what can't be represented exactly.
        """
        return None

    @classmethod
    def to_files(cls, tokenizer: Tokenizer, path: Path) -> list[Path] | None:
        """Write a tokenizer, of whatever part, in the format that a file's name is of; None where this part knows none.

        Args:
            tokenizer: what to write.
            path: the file; what the format has beside it is written beside it.

        Returns:
            the files that were written.

        Raises:
            UserError: the name is of a format that this part knows, but that has no words for the tokenizer.
        """
        return None

    def normalise(self, text: str) -> str:
        """What ``decode(encode(text))`` gives; the identity unless ``lossy``."""
        return text

    @property
    def every_byte(self) -> bool:
        """Whether any bytes can be written and come back, UTF-8 or not."""
        return False

    @property
    def unknown(self) -> int | None:
        """The id that stands for what the vocabulary can't write; None where it can write everything."""
        return None

    @property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that its makers put before and after a text (BOS, ``[CLS]`` … ``[SEP]``); ``encode`` adds none."""
        return (), ()

    def encode_bytes(self, data: bytes) -> list[int]:
        """Bytes to ids; those that are no UTF-8 too, where ``every_byte``.

        Raises:
            UserError: bytes that are no UTF-8, unless ``every_byte``.
        """
        return self.encode(utf8(data))

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        """Ids, and the characters of the text that each stands for.

        As it is here, for those that lose nothing: the bytes of the ids, one after the other, are those of the text.

        Raises:
            UserError: as ``encode``.
        """
        ids = self.encode(text, allow_special=allow_special)
        spans = spans_of_bytes(text, [len(self.decode_bytes([token])) for token in ids])
        return [Piece(token, start, end) for token, (start, end) in zip(ids, spans, strict=True)]

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Encode each text as ``encode`` does."""
        return [self.encode(text, allow_special=allow_special) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode piece by piece; a piece ends at a character's end."""
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in ids:
            piece = decoder.decode(self.decode_bytes([token]))
            if piece:
                yield piece
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    @property
    def end_of_text(self) -> int:
        """Id of the end-of-text token."""
        return self.specials[END_OF_TEXT]


def utf8(data: bytes) -> str:
    """The text that bytes are, for tokenizers that can't write every byte.

    Raises:
        UserError: they are no UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"byte {error.start} of the text (0x{data[error.start]:02X}) is no UTF-8, "
            "and this tokenizer can't write every byte",
            remedy="Repair the text, or take a tokenizer that writes bytes, such as bpe.",
            code="not-utf-8",
        ) from error


def spans_of_bytes(text: str, lengths: Iterable[int]) -> list[tuple[int, int]]:
    """Characters of a text that stretches of its UTF-8 touch, which are so many bytes long and follow each other.

    Bytes that are no UTF-8 stand in the text as surrogate escapes.
    """
    owners = [at for at, character in enumerate(text) for _ in character.encode("utf-8", "surrogateescape")]
    owners.append(len(text))
    spans, start = [], 0
    for length in lengths:
        end = start + length
        spans.append((owners[start], owners[end - 1] + 1 if length else owners[start]))
        start = end
    return spans


def read_tokenizers_json(text: str) -> Tokenizer | None:
    """The tokenizer that a ``tokenizer.json`` describes, by the first installed part that can be it; else None.

    Those that can learn such a vocabulary come first, then those that only hold it; of both, what is written here comes
    before what a library does; then by name.
    """
    parts = [record.load() for record in registration.active().parts("tokenizer")]
    for part in sorted(parts, key=lambda part: (not part.trainable, part.library is not None)):
        made: Tokenizer | None = part.from_tokenizers_json(text)
        if made is not None:
            return made
    return None


def read_tokenizer_files(path: Path) -> Tokenizer | None:
    """The tokenizer that somebody else's files hold, by the first installed part that knows them; else None.

    Raises:
        UserError: they are damaged, or say what can't be represented exactly.
    """
    for record in registration.active().parts("tokenizer"):
        part: type[Tokenizer] = record.load()
        made = part.from_files(path)
        if made is not None:
            return made
    return None


def write_tokenizer_files(tokenizer: Tokenizer, path: Path) -> list[Path]:
    """Write a tokenizer in the format that a file's name is of, by the first installed part that knows it.

    Raises:
        UserError: no installed part knows the format, or it has no words for the tokenizer.
    """
    for record in registration.active().parts("tokenizer"):
        part: type[Tokenizer] = record.load()
        written = part.to_files(tokenizer, path)
        if written is not None:
            return written
    raise UserError(
        f"{path}: no installed part writes tokenizers in a format of that name",
        remedy="Name it tokenizer.json, or install the package that knows the format.",
        code="tokenizer-format-unknown",
    )
