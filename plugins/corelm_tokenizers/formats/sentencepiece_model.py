"""SentencePiece's ``.model``: a message of protocol buffers with pieces, their scores and kinds, and the normaliser.

Kudo and Richardson, 2018, arXiv:1808.06226; the fields are those of the project's ``sentencepiece_model.proto``. All
four model types are read: unigram, byte pairs by score, words, characters.
"""

from __future__ import annotations

import base64
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from corelm_tokenizers.charsmap import SPACE, CharacterMap
from corelm_tokenizers.fallback import BYTES
from corelm_tokenizers.formats import protobuf, schema
from corelm_tokenizers.formats.found import Found, damaged, refused

KINDS: Final = {1: "normal", 2: "unknown", 3: "control", 4: "user_defined", 5: "unused", 6: "byte"}
"""What a piece is, by the number that files give it (GGUF has the same)."""
MODELS: Final = {
    1: "SentencePieceUnigram",
    2: "SentencePieceBPE",
    3: "SentencePieceWord",
    4: "SentencePieceCharacter",
}
"""The model of a description by the file's ``model_type``."""

_FLOAT: Final = struct.Struct("<f")
_SPELLING, _SCORE, _KIND = (
    number << 3 | wire for number, wire in ((1, protobuf.LENGTH), (2, protobuf.FOUR_BYTES), (3, protobuf.VARINT))
)
_FLAGS: Final = {3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces"}

Piece = tuple[str, float, str]
"""Spelling, score, kind."""


@dataclass
class SentenceModel:
    """What a file says; the defaults are the format's."""

    pieces: list[Piece] = field(default_factory=list)
    model_type: int = 1
    byte_fallback: bool = False
    treat_whitespace_as_suffix: bool = False
    end: str = "</s>"
    charsmap: bytes = b""
    flags: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(_FLAGS.values(), True))
    denormalises: bool = False


def describe(path: Path) -> Found:
    """Read a ``.model``.

    Raises:
        UserError: it is damaged, or says what can't be represented.
    """
    try:
        model = read(path.read_bytes())
    except ValueError as error:
        place, _, what = str(error).partition(": ")
        raise damaged(path, place, f"read as a SentencePiece model, {what}") from error
    if model.denormalises:
        raise refused(
            path,
            "it has a denormaliser, which changes texts when they are decoded",
            "Train it without denormalization_rule_tsv, or decode with sentencepiece itself.",
        )
    return found_in(path, model)


def found_in(path: Path, model: SentenceModel, post_processor: schema.Json | None = None) -> Found:
    """The description of what a file says.

    Raises:
        UserError: pieces contradict each other.
    """
    check(path, model)
    special = [
        schema.added_token(number, piece)
        for number, (piece, _, kind) in enumerate(model.pieces)
        if kind in ("control", "unknown")
    ]
    prefix = model.flags["add_dummy_prefix"] or model.flags["remove_extra_whitespaces"]
    normalizer = {
        "type": "SentencePiece",
        "precompiled_charsmap": base64.b64encode(model.charsmap).decode() if model.charsmap else None,
        **model.flags,
        "treat_whitespace_as_suffix": model.treat_whitespace_as_suffix,
        "user_defined": [piece for piece, _, kind in model.pieces if kind == "user_defined"],
    }
    body = {
        "type": MODELS[model.model_type],
        "pieces": [list(piece) for piece in model.pieces],
        "byte_fallback": model.byte_fallback,
    }
    said = schema.description(
        body,
        normalizer=normalizer,
        post_processor=post_processor,
        decoder=schema.sentence_decoder(prefix=prefix, byte_fallback=model.byte_fallback),
        added=special,
    )
    ends = [piece for piece, _, kind in model.pieces if kind == "control" and piece == model.end]
    return Found(said, ends[0] if ends else None)


def check(path: Path, model: SentenceModel) -> None:
    """Raise ``UserError`` where sentencepiece would refuse the pieces, or nobody could say what they mean."""
    if not model.pieces:
        raise damaged(path, "the end", "it has no pieces")
    first: dict[tuple[bool, str], int] = {}
    for number, (piece, score, kind) in enumerate(model.pieces):
        if not piece:
            raise damaged(path, f"piece {number}", "it is empty")
        if math.isnan(score) or math.isinf(score):
            raise damaged(path, f"piece {number} ({piece!r})", f"its score is {score}")
        other = first.setdefault((kind in ("normal", "user_defined", "unused"), piece), number)
        if other != number:
            raise damaged(path, f"piece {number}", f"{piece!r} is piece {other} already")
    unknown = [number for number, piece in enumerate(model.pieces) if piece[2] == "unknown"]
    if len(unknown) != 1:
        what = f"pieces {unknown[0]} and {unknown[1]} both stand" if unknown else "no piece stands"
        raise damaged(path, f"{len(model.pieces)} pieces", f"{what} for what is unknown; it must be one")
    spelt = {piece for piece, _, kind in model.pieces if kind == "byte"}
    wrong = sorted(spelt - set(BYTES)) or sorted(set(BYTES) - spelt if model.byte_fallback else spelt)
    if wrong and model.byte_fallback:
        what = "is no byte" if wrong[0] in spelt else f"is missing, and {len(wrong) - 1} more"
        raise damaged(path, f"byte piece {wrong[0]!r}", f"it {what}; byte_fallback needs <0x00> … <0xFF>")
    if wrong:
        raise damaged(path, f"byte piece {wrong[0]!r}", "it is there although byte_fallback is off")
    if model.charsmap:
        try:
            CharacterMap(model.charsmap)
        except ValueError as error:
            raise damaged(path, "precompiled_charsmap", str(error)) from error


def read(data: bytes) -> SentenceModel:
    """What the bytes of a file say.

    Raises:
        ValueError: they are no such message; the text begins with the byte's offset.
    """
    model = SentenceModel()
    for number, wire, start, end in protobuf.fields(data, 0, len(data)):
        if number in (1, 2, 3, 5) and wire != protobuf.LENGTH:
            raise ValueError(f"byte {start}: field {number} is no message; is this a SentencePiece model?")
        if number == 1:
            model.pieces.append(_usual_piece(data, start, end) or _piece(data, start, end))
        elif number == 2:
            _trainer(data, start, end, model)
        elif number == 3:
            _normaliser(data, start, end, model)
        elif number == 5:
            model.denormalises = any(one.number == 2 and one.end > one.value for one in _fields(data, start, end))
    return model


def _fields(data: bytes, start: int, end: int) -> list[protobuf.Field]:
    return list(protobuf.fields(data, start, end))


def _usual_piece(data: bytes, start: int, end: int) -> Piece | None:
    """A piece as nearly all are: spelling, score and perhaps kind, in this order; None: read it as any message."""
    stop = start + 2 + data[start + 1] if end > start + 1 else end
    if stop + 5 > end or data[start] != _SPELLING or data[start + 1] >= 0x80 or data[stop] != _SCORE:
        return None
    kind = 1
    if stop + 5 < end:
        if stop + 7 != end or data[stop + 5] != _KIND or data[stop + 6] not in KINDS:
            return None
        kind = data[stop + 6]
    return _text(data, start + 2, stop), _FLOAT.unpack_from(data, stop + 1)[0], KINDS[kind]


def _piece(data: bytes, start: int, end: int) -> Piece:
    """One piece."""
    spelling, score, kind = "", 0.0, 1
    for number, wire, value, stop in protobuf.fields(data, start, end):
        if number == 1 and wire == protobuf.LENGTH:
            spelling = _text(data, value, stop)
        elif number == 2 and wire == protobuf.FOUR_BYTES:
            score = _FLOAT.unpack_from(data, value)[0]
        elif number == 3 and wire == protobuf.VARINT:
            kind = value
    if kind not in KINDS:
        raise ValueError(f"byte {start}: piece {spelling!r} is of kind {kind}, which the format doesn't have")
    return spelling, score, KINDS[kind]


def _trainer(data: bytes, start: int, end: int, model: SentenceModel) -> None:
    """Of how it was trained: what matters for encoding."""
    for number, wire, value, stop in protobuf.fields(data, start, end):
        if wire == protobuf.VARINT and number == 3:
            if value not in MODELS:
                raise ValueError(f"byte {start}: model_type is {value}, which the format doesn't have")
            model.model_type = value
        elif wire == protobuf.VARINT and number == 24:
            model.treat_whitespace_as_suffix = bool(value)
        elif wire == protobuf.VARINT and number == 35:
            model.byte_fallback = bool(value)
        elif wire == protobuf.LENGTH and number == 47 and stop > value:
            model.end = _text(data, value, stop)


def _normaliser(data: bytes, start: int, end: int, model: SentenceModel) -> None:
    """What is done with a text first."""
    for number, wire, value, stop in protobuf.fields(data, start, end):
        if wire == protobuf.LENGTH and number == 2:
            model.charsmap = data[value:stop]
        elif wire == protobuf.VARINT and number in _FLAGS:
            model.flags[_FLAGS[number]] = bool(value)


def _text(data: bytes, start: int, end: int) -> str:
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {start + error.start}: it is no UTF-8") from error


def write(found: Found, path: Path) -> None:
    """Write a ``.model`` that sentencepiece reads.

    Raises:
        UserError: the description is of another kind of tokenizer.
    """
    model = model_in(found)
    if model is None:
        raise refused(
            path,
            f"a {found.description['model']['type']}, or what is done before it, can't be said in a SentencePiece model",
            "Write a tokenizer.json instead.",
        )
    path.write_bytes(message(model))


def model_in(found: Found) -> SentenceModel | None:
    """The inverse of ``found_in``; None where SentencePiece has no words for a description.

    Besides what ``found_in`` gives, it has words for cutting before each space, where no piece has one inside, and for
    special tokens after the pieces.
    """
    said = found.description
    model, normalizer, cut = said["model"], said["normalizer"], said["pre_tokenizer"]
    types = {name: number for number, name in MODELS.items()}
    if model["type"] not in types:
        return None
    made = SentenceModel([(piece, score, kind) for piece, score, kind in model["pieces"]], types[model["type"]])
    made.byte_fallback, made.end = model["byte_fallback"], found.end_of_text or ""
    if normalizer and normalizer["type"] == "SentencePiece" and not cut:
        made.charsmap = base64.b64decode(normalizer["precompiled_charsmap"] or "")
        made.flags = {name: normalizer[name] for name in _FLAGS.values()}
        made.treat_whitespace_as_suffix = normalizer["treat_whitespace_as_suffix"]
    elif normalizer or not _before_each_space(cut) or any(SPACE in piece[1:] for piece, _, _ in made.pieces):
        return None
    else:
        made.flags = {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "escape_whitespaces": True}
    for token in said["added_tokens"]:
        if token["id"] == len(made.pieces) and token["special"]:
            made.pieces.append((token["content"], 0.0, "control"))
        elif token["id"] >= len(made.pieces) or made.pieces[token["id"]][0] != token["content"]:
            return None
    return made


def _before_each_space(cut: schema.Json | None) -> bool:
    """Whether a pre-tokenizer writes spaces as ``▁`` and cuts before each, and does nothing else."""
    return bool(cut) and (cut or {}).items() >= {
        ("type", "Metaspace"),
        ("replacement", SPACE),
        ("prepend_scheme", "never"),
    }


def message(model: SentenceModel) -> bytes:
    """The bytes of a ``.model``."""
    kinds = {name: number for number, name in KINDS.items()}
    unknown = next(number for number, piece in enumerate(model.pieces) if piece[2] == "unknown")
    trainer: dict[int, Any] = {
        3: model.model_type,
        4: len(model.pieces),
        24: int(model.treat_whitespace_as_suffix),
        35: int(model.byte_fallback),
        40: unknown,
        45: model.pieces[unknown][0].encode(),
    }
    if model.end:
        trainer[47] = model.end.encode()
    spec: dict[int, Any] = {number: int(model.flags[name]) for number, name in _FLAGS.items()}
    if model.charsmap:
        spec[2] = model.charsmap
    pieces = ({1: piece.encode(), 2: float(score), 3: kinds[kind]} for piece, score, kind in model.pieces)
    return b"".join(
        protobuf.field(number, _message(part))
        for number, part in [*((1, piece) for piece in pieces), (2, trainer), (3, spec)]
    )


def _message(values: dict[int, Any]) -> bytes:
    return b"".join(protobuf.field(number, value) for number, value in sorted(values.items()))
