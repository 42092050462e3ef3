"""A ``tokenizer.json``, run from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

from corelm.errors import UserError
from corelm.kinds import Piece, Tokenizer, utf8
from corelm_tokenizers import description, description_steps
from corelm_tokenizers.added import Finder
from corelm_tokenizers.building import check_added, model_of, pieces_of, writes_letters
from corelm_tokenizers.byte_letters import letters
from corelm_tokenizers.cutting import Word, cutting
from corelm_tokenizers.decoding import Decoding
from corelm_tokenizers.described import Described, frame_of
from corelm_tokenizers.library_numbers import number
from corelm_tokenizers.model import Model, Remembered
from corelm_tokenizers.normalising import normaliser, through
from corelm_tokenizers.vocabulary import check_scalars


class Assembly:
    """A description put together: added tokens, normaliser, cutting, model and decoder.

    Args:
        data: the description, in the schema of ``tokenizer.json``.
        model: runs the description's model; None: what is said there.

    Raises:
        UserError: the description contradicts itself, or says what can't be run exactly.
    """

    def __init__(self, data: Mapping[str, Any], model: Model | None = None) -> None:
        said = description.read(data)
        pieces = pieces_of(said)
        check_added(said, pieces)
        self.model = model_of(said, pieces) if model is None else model
        self._normaliser = normaliser(said.normalizer)
        self._cutting = cutting(said.pre_tokenizer, self._normaliser is not None)
        normalise = self._normaliser.normalise if self._normaliser else str
        self._raw = Finder([token for token in said.added_tokens if not token.normalized], str)
        self._normalised = Finder([token for token in said.added_tokens if token.normalized], normalise)
        self._remembered = Remembered(self._compute)
        added = {token.id: (token.content, token.special) for token in said.added_tokens}
        spelt = [*pieces, *(content for number, (content, _) in sorted(added.items()) if number >= len(pieces))]
        self.decoding = Decoding(data.get("decoder"), spelt, added)
        self.frame = frame_of(data.get("post_processor"))
        self.every_byte = self._normaliser is None and self._cutting.keeps and self._writes_bytes(said, pieces)
        ours = isinstance(said.model, description.SentencePieceModel)
        self.sayable = not ours and not isinstance(said.normalizer, description_steps.SentencePieceNormalizer)
        """Whether the library tokenizers has words for it."""
        if self.decoding.strange:
            raise UserError(
                f"{self.decoding.strange} can't be run exactly",
                remedy="Run the file by the library: `use: tokenizers-json`.",
                code="tokenizer-not-representable",
            )

    def _writes_bytes(self, said: description.Description, pieces: Sequence[str]) -> bool:
        if self._cutting.by_letters:
            return isinstance(said.decoder, description_steps.ByteLevel) and writes_letters(said.model, pieces)
        steps = (
            said.decoder.decoders if isinstance(said.decoder, description_steps.DecoderSequence) else (said.decoder,)
        )
        first = next((step for step in steps if not isinstance(step, description_steps.Fuse)), None)
        return self.model.every_byte and isinstance(first, description_steps.ByteFallback)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.decoding)

    @property
    def specials(self) -> dict[str, int]:
        """Special tokens and their ids."""
        return dict(self.decoding.specials)

    @property
    def unknown(self) -> int | None:
        """The id that stands for what can't be written."""
        return self.model.unknown

    def words(self, text: str) -> list[str]:
        """What the model gets of a text in which there are no added tokens."""
        text = self._normaliser.normalise(text) if self._normaliser else text
        return self._cutting.words(text, True) if text else []

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids.

        Raises:
            UserError: a lone surrogate.
        """
        check_scalars(text)
        return self._encode(text, allow_special)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Bytes to ids; those that are no UTF-8 too, where ``every_byte``.

        Raises:
            UserError: bytes that are no UTF-8, unless ``every_byte``.
        """
        return self._encode(data.decode("utf-8", "surrogateescape") if self.every_byte else utf8(data), False)

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        """Ids, and the characters of the text as it was given that each stands for.

        Raises:
            UserError: a lone surrogate.
        """
        check_scalars(text)
        found: list[Piece] = []
        for start, end, token in self._raw.stretches(text, allow_special) or [(0, len(text), -1)]:
            if token >= 0:
                found.append(Piece(token, start, end))
            elif start < end:
                owners = [(place, place + 1) for place in range(start, end)]
                found += self._placed((text[start:end], owners), allow_special)
        return found

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Ids to bytes."""
        return self.decoding.decode_bytes(ids)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text piece by piece."""
        return self.decoding.stream(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text."""
        return self.decoding.decode(ids)

    def normalise(self, text: str) -> str:
        """What is left of a text once it has been encoded."""
        return self.decode(self.encode(text))

    def _encode(self, text: str, allow_special: bool) -> list[int]:
        if self._cutting.by_place:
            return [piece.id for piece in self.encode_with_spans(text, allow_special=allow_special)]
        if not text:
            return []  # whatever the normaliser would make of it
        raw = self._raw.stretches(text, allow_special)
        if raw is None:
            return list(chain.from_iterable(self._stretch(text, True, allow_special)))
        found: list[int] = []
        for start, end, token in raw:
            if token >= 0:
                found.append(token)
            else:
                found.extend(chain.from_iterable(self._stretch(text[start:end], start == 0, allow_special)))
        return found

    def _stretch(self, text: str, first: bool, allow_special: bool) -> Iterator[Iterable[int]]:
        """Ids of a text without the added tokens that are found as they are; ``first``: it begins the text."""
        if self._normaliser is not None:
            text = self._normaliser.normalise(text)
        remembered = self._remembered.__getitem__
        for start, end, token in self._normalised.stretches(text, allow_special) or [(0, len(text), -1)]:
            if token >= 0:
                yield (token,)
            elif start < end:
                yield from map(remembered, self._cutting.words(text[start:end], first and start == 0))

    def _placed(self, word: Word, allow_special: bool) -> Iterator[Piece]:
        """The same as ``_stretch``, with the characters of the original that each id stands for."""
        text, owners = word
        if self._normaliser is not None:
            text, changed = self._normaliser.aligned(text)
            owners = [through(owners, start, end) for start, end in changed]
        for start, end, token in self._normalised.stretches(text, allow_special) or [(0, len(text), -1)]:
            if token >= 0:
                yield Piece(token, *through(owners, start, end))
            elif start < end:
                for one, places in self._cutting.placed((text[start:end], owners[start:end])):
                    ids = self._remembered[one]
                    for number, (first, last) in zip(ids, self._spans(one, ids), strict=True):
                        yield Piece(number, *through(places, first, last))

    def _compute(self, word: str) -> tuple[int, ...]:
        return self.model.ids(letters(word) if self._cutting.by_letters else word)

    def _spans(self, word: str, ids: Sequence[int]) -> Sequence[tuple[int, int]]:
        """Characters of a word that its ids cover."""
        if not self._cutting.by_letters:
            return self.model.spans(word, ids)
        owners = [at for at, character in enumerate(word) for _ in character.encode("utf-8", "surrogateescape")]
        spans = self.model.spans(letters(word), ids)
        return [(owners[start], owners[end - 1] + 1) if start < end else (0, 0) for start, end in spans]


class Assembled(Described):
    """A ``tokenizer.json``, run from scratch.

    Put together of added tokens, normaliser, cutting, model and decoder (``Assembly``). The same ids as the library
    tokenizers (``tokenizers-json``) on the same file, for byte-pair encoding, WordPiece, Unigram and whole words, and
    for what SentencePiece needs beside them. A text never becomes a special token unless it is allowed to, not even
    where the file's model has a piece that is spelt so. What isn't known to be done exactly is refused by name.
    """

    def _set(self, text: str) -> None:
        try:
            data = json.loads(text, parse_float=number)
        except ValueError:
            data = text  # the error is that of whoever reads a description
        self._take(data, text)

    def _take(self, data: Any, text: str) -> None:
        """Take a file's text that is read already."""
        self._assembly = Assembly(data)
        self._decoding, self._frame, self._text = self._assembly.decoding, self._assembly.frame, text

    @property
    def every_byte(self) -> bool:
        """Whether it writes bytes, and nothing changes the text before."""
        self._loaded()
        return self._assembly.every_byte

    @property
    def unknown(self) -> int | None:
        """Id of the unknown."""
        self._loaded()
        return self._assembly.unknown

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids, nothing added before or after.

        Raises:
            UserError: a lone surrogate.
        """
        self._loaded()
        return self._assembly.encode(text, allow_special=allow_special)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Bytes to ids; those that are no UTF-8 too, where ``every_byte``.

        Raises:
            UserError: bytes that are no UTF-8, unless ``every_byte``.
        """
        self._loaded()
        return self._assembly.encode_bytes(data)

    def encode_with_spans(self, text: str, *, allow_special: bool = False) -> list[Piece]:
        """Ids, and the characters of the text as it was given that each stands for.

        Raises:
            UserError: a lone surrogate.
        """
        self._loaded()
        return self._assembly.encode_with_spans(text, allow_special=allow_special)

    def as_tokenizers_json(self) -> str | None:
        """The file's text; None where the library has no words for it."""
        told = super().as_tokenizers_json()
        return told if self._assembly.sayable else None

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """Any that can be run exactly."""
        made = cls(cls.Config())
        try:
            made._set(text)
        except UserError:
            return None
        return made

    @classmethod
    def from_description(cls, data: Mapping[str, Any], text: str) -> Self:
        """The tokenizer that a description says.

        Args:
            data: the description; its numbers read by ``library_numbers.number``.
            text: the same, as it is saved.

        Raises:
            UserError: it contradicts itself, or says what can't be run exactly.
        """
        made = cls(cls.Config())
        made._take(data, text)
        return made

    @classmethod
    def from_files(cls, path: Path) -> Tokenizer | None:
        """The tokenizer that any of the field's files holds (``corelm_tokenizers.formats``), by the part that fits."""
        from corelm_tokenizers import formats

        return formats.load(path)

    @classmethod
    def to_files(cls, tokenizer: Tokenizer, path: Path) -> list[Path] | None:
        """Any tokenizer that can be described, in any of the formats of ``corelm_tokenizers.formats``."""
        from corelm_tokenizers import formats

        return formats.save(tokenizer, path)
