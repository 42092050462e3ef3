"""Kind ``tokenizer``: text to ids and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from corelm import registration
from corelm.kinds.component import Component

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"


class Tokenizer(Component):
    """Maps text to ids and back.

    Built as ``Part(config)``: untrained unless the part needs no training. ``train`` and ``load`` make it usable.

    Contract, for every string of Unicode scalar values:
        * ``decode(encode(s)) == normalise(s)``; ``normalise`` is the identity unless ``lossy``, and idempotent.
        * Ids are exactly ``0 … vocab_size − 1``, special tokens included.
        * ``encode`` depends on nothing but its text; text never becomes a special token unless
          ``allow_special``, whatever it spells.
        * ``decode_bytes`` of a concatenation is the concatenation of ``decode_bytes``, ``decode`` is its UTF-8
          reading with replacement characters.
        * ``stream`` yields pieces whose concatenation is ``decode``, never half a character.
        * Training depends on the multiset of documents only, not on their order or on hash seeds.
        * Saving is plain JSON, the same bytes every time; loading gives the same encodings.
        * One that is not ``trainable`` comes from ``from_tokenizers_json`` or ``load``; ``train`` raises ``UserError``.
    Errors: lone surrogates raise ``UserError`` naming the offset.
    """

    kind: ClassVar[str] = "tokenizer"
    lossy: ClassVar[bool] = False
    trainable: ClassVar[bool] = True
    """Whether it can learn from text; false where it only holds what was made elsewhere."""

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

    def normalise(self, text: str) -> str:
        """What ``decode(encode(text))`` gives; the identity unless ``lossy``."""
        return text

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


def read_tokenizers_json(text: str) -> Tokenizer | None:
    """The tokenizer that a ``tokenizer.json`` describes, by the first installed part that can be it; else None."""
    for record in registration.active().parts("tokenizer"):
        part: type[Tokenizer] = record.load()
        made = part.from_tokenizers_json(text)
        if made is not None:
            return made
    return None
