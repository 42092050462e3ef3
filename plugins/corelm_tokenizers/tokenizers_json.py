"""A ``tokenizer.json`` of the ``tokenizers`` library, as it is."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import tokenizers
from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import END_OF_TEXT, ComponentConfig, Tokenizer
from corelm_tokenizers.library import spelling
from corelm_tokenizers.vocabulary import check_scalars

FILE: Final = "tokenizer.json"
ENDS: Final = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>", "[SEP]")
"""Special tokens that models end a text with, the usual first."""

_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")


class TokenizersJson(Tokenizer):
    """A ``tokenizer.json`` of the ``tokenizers`` library, as it is.

    For models that were trained elsewhere: the library encodes, whatever normaliser, pattern and model the file names.
    It can't be trained; a recipe takes it by ``tokenizer: {load: PATH}``. Texts come back as the file's normaliser
    leaves them. A token's bytes are those that it has inside of a text, a word's leading space included; where the
    file's decoder takes off the space before a text's first word, so do ``decode`` and ``stream``.
    """

    lossy: ClassVar[bool] = True
    trainable: ClassVar[bool] = False

    class Config(ComponentConfig):
        """What the file doesn't say."""

        end_of_text: str | None = Field(
            None, description="The special token that ends a text; null: the first usual one that there is."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._text = ""

    def _set(self, text: str) -> None:
        """Take a file's text."""
        self._text = text
        self._special, self._plain = (tokenizers.Tokenizer.from_str(text) for _ in range(2))
        self._plain.encode_special_tokens = True  # what a text spells is text
        for library in (self._special, self._plain):
            library.no_padding()
            library.no_truncation()
        decoder = json.loads(text).get("decoder")
        added = self._special.get_added_tokens_decoder()
        self._specials = {token.content: number for number, token in added.items() if token.special}
        spell = _speller(decoder)
        vocabulary = self._special.get_vocab(with_added_tokens=True)
        self._pieces = [b""] * (1 + max(vocabulary.values()))
        for token, number in vocabulary.items():
            self._pieces[number] = token.encode() if number in added else spell(token)
        self._strips = _strips(decoder)

    def train(self, documents: Iterable[str], specials: Sequence[str] = (END_OF_TEXT,)) -> None:
        """Refuse.

        Raises:
            UserError: always.
        """
        raise UserError(
            "tokenizers-json holds a tokenizer that was trained elsewhere",
            remedy="Take it by `tokenizer: {load: PATH}`, or train bpe.",
            code="tokenizer-not-trainable",
        )

    @classmethod
    def trained_size(cls, config: Any, specials: Sequence[str] = (END_OF_TEXT,)) -> int:
        """Nothing: it can't be trained."""
        return 0

    @property
    def vocab_size(self) -> int:
        """One more than the largest id; ids in between that the file leaves out are empty pieces."""
        self._loaded()
        return len(self._pieces)

    @property
    def specials(self) -> dict[str, int]:
        """Special tokens and their ids."""
        self._loaded()
        return dict(self._specials)

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends a text.

        Raises:
            UserError: none of the special tokens is known to do that.
        """
        wanted = ENDS if self.config.end_of_text is None else (self.config.end_of_text,)
        found = next((self.specials[name] for name in wanted if name in self.specials), None)
        if found is None:
            raise UserError(
                f"the tokenizer has no special token {' or '.join(wanted)} to end a text with",
                remedy=f"Set end_of_text to one of its own: {', '.join(self.specials) or 'it has none'}.",
                code="no-end-of-text",
            )
        return found

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text to ids, nothing added before or after.

        Raises:
            UserError: a lone surrogate.
        """
        return self.encode_batch([text], allow_special=allow_special)[0]

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Encode each text as ``encode`` does, on all processors."""
        self._loaded()
        for text in texts:
            check_scalars(text)
        library = self._special if allow_special else self._plain
        return [one.ids for one in library.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Ids to bytes; special tokens give their spelling.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        self._loaded()
        wrong = next((int(token) for token in ids if not 0 <= token < len(self._pieces)), None)
        if wrong is not None:
            raise UserError(
                f"token id {wrong} is outside the vocabulary of {len(self._pieces)} ids",
                remedy="Decode with the tokenizer that the ids were made with.",
                code="token-id-out-of-range",
            )
        return b"".join(self._pieces[token] for token in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; bytes that are no UTF-8 become U+FFFD."""
        return "".join(self.stream(ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode piece by piece; a piece ends at a character's end."""
        decoder, first = codecs.getincrementaldecoder("utf-8")(errors="replace"), self._strips
        for token in ids:
            piece = decoder.decode(self.decode_bytes([token]))
            if first and piece:
                piece, first = piece.removeprefix(" "), False
            if piece:
                yield piece
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def normalise(self, text: str) -> str:
        """What is left of a text once it has been encoded."""
        return self.decode(self.encode(text))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, as it came."""
        self._loaded()
        (folder / FILE).write_text(self._text, encoding="utf-8", newline="")

    @classmethod
    def load(cls, config: Any, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            UserError: the file is missing or isn't the library's.
        """
        path, made = folder / FILE, cls(config)
        try:
            made._set(path.read_bytes().decode("utf-8"))
        except Exception as error:  # the library raises nothing more special
            raise UserError(
                f"{path}: not a tokenizer that the tokenizers library reads: {error}",
                remedy="Restore the file.",
                code="tokenizer-unreadable",
            ) from error
        return made

    def as_tokenizers_json(self) -> str | None:
        """The file's text."""
        self._loaded()
        return self._text

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """Any that the library reads."""
        made = cls(cls.Config())
        try:
            made._set(text)
        except Exception:  # the library raises nothing more special
            return None
        return made

    def _loaded(self) -> None:
        if not self._text:
            raise UserError("the tokenizer has no vocabulary yet", remedy="Load one.", code="tokenizer-untrained")


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """What a file's decoder does, in order."""
    if not decoder:
        return []
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _speller(decoder: Any) -> Callable[[str], bytes]:
    """How the decoder turns a token inside of a text into bytes."""
    steps = _steps(decoder)
    if any(step["type"] == "ByteLevel" for step in steps):
        values = {character: value for value, character in enumerate(spelling())}
        return lambda token: b"".join(bytes([values[c]]) if c in values else c.encode() for c in token)

    def spell(token: str) -> bytes:
        if not steps:
            return f" {token}".encode()  # without a decoder the library puts spaces between tokens
        for step in steps:
            if step["type"] == "ByteFallback" and (byte := _BYTE.fullmatch(token)):
                return bytes([int(byte[1], 16)])
            if step["type"] == "Replace" and "String" in step["pattern"]:
                token = token.replace(step["pattern"]["String"], step["content"])
            elif step["type"] == "Metaspace":
                token = token.replace(step["replacement"], " ")
            elif step["type"] == "WordPiece":
                inside = token.startswith(step["prefix"])
                token = token.removeprefix(step["prefix"]) if inside else f" {token}"
            elif step["type"] == "BPEDecoder":
                token = token.replace(step["suffix"], " ")
        return token.encode()

    return spell


def _strips(decoder: Any) -> bool:
    """Whether the decoder takes off the space that its pieces put before a text's first word."""
    return not decoder or any(
        step["type"] == "WordPiece"
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        or (step["type"] == "Strip" and step["content"] == " " and step["start"] > 0)
        for step in _steps(decoder)
    )
