"""A tokenizer in words: the schema of ``tokenizer.json``, and what SentencePiece needs beside it.

The file format is that of the library tokenizers (huggingface/tokenizers): a normaliser, a way to cut text into words,
a model, decoding, added tokens, and what is put around a text. Types whose name begins with ``SentencePiece`` are
ours, for what that library has no words for. What is not named here is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator

from corelm.errors import UserError
from corelm_tokenizers.description_steps import ByteLevel, Decoder, Normalizer, PreTokenizer, Said
from corelm_tokenizers.library_numbers import number

Kind = Literal["normal", "unknown", "control", "user_defined", "unused", "byte"]
"""What a piece of SentencePiece is for."""


class AddedToken(Said):
    """A text that is one id wherever it stands, before any model sees it."""

    id: int = Field(ge=0)
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


# Models


class Bpe(Said):
    """Byte-pair encoding by merges."""

    type: Literal["BPE"]
    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False

    @field_validator("merges", mode="before")
    @classmethod
    def _pairs(cls, merges: Any) -> Any:
        """Older files write a merge as one text with a space in it."""
        if isinstance(merges, list) and any(isinstance(merge, str) for merge in merges):
            told = (merge for merge in merges if not (isinstance(merge, str) and merge.startswith("#version")))
            return [_halves(place, merge) for place, merge in enumerate(told)]
        return merges


def _halves(place: int, merge: Any) -> Any:
    if not isinstance(merge, str):
        return merge
    halves = merge.split(" ")
    if len(halves) != 2:
        raise ValueError(f"merge {place} is {merge!r}, not two pieces with one space between them")
    return tuple(halves)


class WordPieceModel(Said):
    """The longest piece first."""

    type: Literal["WordPiece"]
    vocab: dict[str, int]
    unk_token: str = "[UNK]"
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100


class WordLevel(Said):
    """Whole words."""

    type: Literal["WordLevel"]
    vocab: dict[str, int]
    unk_token: str = "<unk>"


class UnigramModel(Said):
    """Pieces with the logarithm of their probability."""

    type: Literal["Unigram"]
    unk_id: int | None = None
    vocab: tuple[tuple[str, float], ...]
    byte_fallback: bool = False


class SentencePieceModel(Said):
    """Pieces with score and kind, as SentencePiece runs them: unused ones, user-defined ones, sums in float32."""

    type: Literal["SentencePieceBPE", "SentencePieceUnigram", "SentencePieceWord", "SentencePieceCharacter"]
    pieces: tuple[tuple[str, float, Kind], ...]
    byte_fallback: bool = False


Model = Annotated[Bpe | WordPieceModel | WordLevel | UnigramModel | SentencePieceModel, Field(discriminator="type")]


# What is put around a text


class BertProcessing(Said):
    """One token before, one after."""

    type: Literal["BertProcessing"]
    sep: tuple[str, int]
    cls: tuple[str, int]


class RobertaProcessing(Said):
    """One token before, one after."""

    type: Literal["RobertaProcessing"]
    sep: tuple[str, int]
    cls: tuple[str, int]
    trim_offsets: bool = True
    add_prefix_space: bool = True


class TemplateProcessing(Said):
    """Tokens and the places of the texts, for one text and for two."""

    type: Literal["TemplateProcessing"]
    single: tuple[dict[str, dict[str, Any]], ...]
    pair: tuple[dict[str, dict[str, Any]], ...] = ()
    special_tokens: dict[str, dict[str, Any]] = Field(default_factory=dict)


class ProcessorSequence(Said):
    """One after the other."""

    type: Literal["Sequence"]
    processors: tuple[PostProcessor, ...]


PostProcessor = Annotated[
    BertProcessing | RobertaProcessing | ByteLevel | TemplateProcessing | ProcessorSequence,
    Field(discriminator="type"),
]


class Description(Said):
    """All of it. ``truncation`` and ``padding`` are how the library is called, not what the tokenizer is."""

    version: str = "1.0"
    truncation: Any = None
    padding: Any = None
    added_tokens: tuple[AddedToken, ...] = ()
    normalizer: Normalizer | None = None
    pre_tokenizer: PreTokenizer | None = None
    post_processor: PostProcessor | None = None
    decoder: Decoder | None = None
    model: Model

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, model: Any) -> Any:
        """Files of older versions don't say what the model is; its fields do."""
        if not isinstance(model, dict) or "type" in model:
            return model
        marks = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
        return {"type": next((name for mark, name in marks.items() if mark in model), "WordLevel"), **model}


_MOST_NAMED: Final = 3


def read(content: str | Mapping[str, Any], where: str = "the description") -> Description:
    """A description, from JSON or from what JSON was read to.

    Args:
        content: the text, or the mapping.
        where: names the file in errors.

    Raises:
        UserError: it isn't JSON, or says what this library doesn't know.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content, parse_float=number)
        except ValueError as error:
            raise UserError(
                f"{where}: not JSON: {error}",
                remedy="Copy the file again, or make it anew.",
                code="tokenizer-file-damaged",
            ) from error
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {_said(e)}" for e in error.errors()[:_MOST_NAMED]]
        more = error.error_count() - len(found)
        raise UserError(
            f"{where}: {'; '.join(found)}{f'; and {more} more' if more > 0 else ''}",
            remedy="What isn't known here can't be run exactly; `use: tokenizers-json` runs it by the library.",
            code="tokenizer-not-representable",
        ) from error


def _said(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field is known"
    if error["type"] == "union_tag_invalid":
        return f"the type {error['ctx']['tag']!r} is not known"
    return str(error["msg"])
