"""What a description says is done to text and to pieces: normalisers, ways to cut, decoders.

Names and fields are those of ``tokenizer.json``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Behaviour = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PrependScheme = Literal["always", "first", "never"]


class Said(BaseModel):
    """Base of all that a description says; what isn't known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StringPattern(Said):
    """A text as it is."""

    String: str = Field(min_length=1)


class RegexPattern(Said):
    """A regular expression of Oniguruma."""

    Regex: str = Field(min_length=1)


Pattern = StringPattern | RegexPattern


# Normalisers


class Nfc(Said):
    """Canonical composition."""

    type: Literal["NFC"]


class Nfd(Said):
    """Canonical decomposition."""

    type: Literal["NFD"]


class Nfkc(Said):
    """Compatibility composition."""

    type: Literal["NFKC"]


class Nfkd(Said):
    """Compatibility decomposition."""

    type: Literal["NFKD"]


class Lowercase(Said):
    """Lower case, character by character."""

    type: Literal["Lowercase"]


class StripAccents(Said):
    """No marks."""

    type: Literal["StripAccents"]


class Nmt(Said):
    """Control characters go, odd spaces become plain ones."""

    type: Literal["Nmt"]


class ByteLevelNormalizer(Said):
    """Bytes as letters."""

    type: Literal["ByteLevel"]


class Strip(Said):
    """No white space at the ends."""

    type: Literal["Strip"]
    strip_left: bool = True
    strip_right: bool = True


class Replace(Said):
    """One text for another; also a decoder."""

    type: Literal["Replace"]
    pattern: Pattern
    content: str


class Prepend(Said):
    """Something before the text."""

    type: Literal["Prepend"]
    prepend: str


class BertNormalizer(Said):
    """What BERT does with a text."""

    type: Literal["BertNormalizer"]
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class Precompiled(Said):
    """SentencePiece's compiled map of characters, as the library reads it."""

    type: Literal["Precompiled"]
    precompiled_charsmap: str | None = None


class SentencePieceNormalizer(Said):
    """What SentencePiece does with a text; see ``charsmap.SentencePieceNormaliser``."""

    type: Literal["SentencePiece"]
    precompiled_charsmap: str | None = None
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    treat_whitespace_as_suffix: bool = False
    user_defined: tuple[str, ...] = ()


class NormalizerSequence(Said):
    """One after the other."""

    type: Literal["Sequence"]
    normalizers: tuple[Normalizer, ...]


Normalizer = Annotated[
    Nfc
    | Nfd
    | Nfkc
    | Nfkd
    | Lowercase
    | StripAccents
    | Nmt
    | ByteLevelNormalizer
    | Strip
    | Replace
    | Prepend
    | BertNormalizer
    | Precompiled
    | SentencePieceNormalizer
    | NormalizerSequence,
    Field(discriminator="type"),
]


# Ways to cut


class ByteLevel(Said):
    """Also a decoder and a post-processor, with the same fields."""

    type: Literal["ByteLevel"]
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True


class Metaspace(Said):
    """Also a decoder, with the same fields."""

    type: Literal["Metaspace"]
    replacement: str = Field("▁", min_length=1, max_length=1)
    prepend_scheme: PrependScheme = "always"
    split: bool = True

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_once(cls, data: Any) -> Any:
        """Files of older versions say ``add_prefix_space``, and the replacement twice."""
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if key != "str_rep"}
        added = data.pop("add_prefix_space", None)
        if added is not None:
            if not added and data.get("prepend_scheme", "never") != "never":
                raise ValueError("add_prefix_space and prepend_scheme contradict each other")
            data.setdefault("prepend_scheme", "always" if added else "never")
        return data


class Split(Said):
    """At what a pattern finds."""

    type: Literal["Split"]
    pattern: Pattern
    behavior: Behaviour
    invert: bool = False


class Whitespace(Said):
    """Words and signs, without white space."""

    type: Literal["Whitespace"]


class WhitespaceSplit(Said):
    """At white space."""

    type: Literal["WhitespaceSplit"]


class BertPreTokenizer(Said):
    """At white space, and each sign alone."""

    type: Literal["BertPreTokenizer"]


class Digits(Said):
    """At digits."""

    type: Literal["Digits"]
    individual_digits: bool = False


class Punctuation(Said):
    """At signs."""

    type: Literal["Punctuation"]
    behavior: Behaviour = "Isolated"


class CharDelimiterSplit(Said):
    """At one character, which is left out."""

    type: Literal["CharDelimiterSplit"]
    delimiter: str = Field(min_length=1, max_length=1)


class UnicodeScripts(Said):
    """Where the script changes."""

    type: Literal["UnicodeScripts"]


class FixedLength(Said):
    """After so many characters each."""

    type: Literal["FixedLength"]
    length: int = Field(5, gt=0)


class PreTokenizerSequence(Said):
    """One after the other."""

    type: Literal["Sequence"]
    pretokenizers: tuple[PreTokenizer, ...]


PreTokenizer = Annotated[
    ByteLevel
    | Metaspace
    | Split
    | Whitespace
    | WhitespaceSplit
    | BertPreTokenizer
    | Digits
    | Punctuation
    | CharDelimiterSplit
    | UnicodeScripts
    | FixedLength
    | PreTokenizerSequence,
    Field(discriminator="type"),
]


# Decoders


class WordPieceDecoder(Said):
    """Spaces between words."""

    type: Literal["WordPiece"]
    prefix: str = "##"
    cleanup: bool = True


class BpeDecoder(Said):
    """A space where a word ends."""

    type: Literal["BPEDecoder"]
    suffix: str = "</w>"


class ByteFallback(Said):
    """``<0x0A>`` as a byte."""

    type: Literal["ByteFallback"]


class Fuse(Said):
    """All pieces as one."""

    type: Literal["Fuse"]


class StripDecoder(Said):
    """Not so many of a character at the ends."""

    type: Literal["Strip"]
    content: str = Field(min_length=1, max_length=1)
    start: int = Field(0, ge=0)
    stop: int = Field(0, ge=0)


class DecoderSequence(Said):
    """One after the other."""

    type: Literal["Sequence"]
    decoders: tuple[Decoder, ...]


Decoder = Annotated[
    ByteLevel
    | Metaspace
    | WordPieceDecoder
    | BpeDecoder
    | ByteFallback
    | Fuse
    | StripDecoder
    | Replace
    | DecoderSequence,
    Field(discriminator="type"),
]
