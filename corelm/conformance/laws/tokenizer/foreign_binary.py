"""Files of the field's binary formats, made up: GGUF's metadata and SentencePiece's ``.model``."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from corelm.conformance.laws.tokenizer.foreign import (
    END,
    Foreign,
    Json,
    Writing,
    as_described,
    bert_encoding,
    byte_pairs,
    library,
    word_list,
    writing,
)
from corelm.conformance.laws.tokenizer.maps import character_map

_SIGNS: Final = "abehnstTA.,!12é日本ßÅ"
_CONTROL, _UNKNOWN, _USER_DEFINED, _UNUSED, _BYTE = 3, 2, 4, 5, 6


# GGUF


def _gguf(values: Json, version: int = 3) -> bytes:
    """Values of every type are told by Python's: text, truth, whole numbers, floats, lists; pairs name the type."""
    body = [b"GGUF", struct.pack("<IQQ", version, 0, len(values))]
    for key, value in values.items():
        kind, written = _value(value)
        body += [_text(key), struct.pack("<I", kind), written]
    return b"".join(body)


_TYPES: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, list):
        kinds = [_value(one) for one in value]
        return 9, struct.pack("<IQ", kinds[0][0] if kinds else 8, len(kinds)) + b"".join(one for _, one in kinds)
    if isinstance(value, str):
        return 8, _text(value)
    kind, number = value if isinstance(value, tuple) else ({bool: 7, float: 6, int: 5}[type(value)], value)
    return kind, struct.pack(f"<{_TYPES[kind]}", number)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _in_gguf(chance: random.Random, values: Json) -> tuple[Writing, ...]:
    """By themselves, and among values of every type in another order, in the version before."""
    others: Json = {f"general.{kind}": (kind, 1) for kind in _TYPES}
    others |= {"general.list": [(2, 1)], "general.name": "x", "general.tags": ["a", "b"], "general.none": []}
    mixed = chance.sample([*values.items(), *others.items()], len(values) + len(others))
    named = {f"tokenizer.{key}" if key in values else key: value for key, value in mixed}
    plain = {"general.architecture": "llama", **{f"tokenizer.{key}": value for key, value in values.items()}}
    return writing({"x.gguf": _gguf(plain)}, "x.gguf"), writing({"model": _gguf(named, 2)}, "model")


def gguf_pairs(chance: random.Random) -> Foreign:
    """Byte pairs."""
    pairs = byte_pairs(chance)
    size = len(pairs.vocabulary)
    values = {
        "ggml.model": "gpt2",
        "ggml.pre": "gpt-2",
        "ggml.tokens": [*pairs.vocabulary, END],
        "ggml.token_type": [*[1] * size, _CONTROL],
        "ggml.merges": [f"{left} {right}" for left, right in pairs.merges],
        "ggml.eos_token_id": (4, size),
    }
    return Foreign(
        _in_gguf(chance, values), as_described(pairs.described({END: size})), {END: size}, "x.gguf", pairs.words
    )


def gguf_words(chance: random.Random) -> Foreign:
    """WordPiece, the pieces that begin a word marked."""
    pieces = word_list(chance, True)
    marked = [p if p[0] == "[" else p[2:] if p.startswith("##") else f"▁{p}" for p in pieces]
    values = {
        "ggml.model": "bert",
        "ggml.tokens": marked,
        "ggml.token_type": [*[_CONTROL] * 5, *[1] * (len(pieces) - 5)],
    }
    specials = {piece: number for number, piece in enumerate(pieces[:5])}
    return Foreign(
        _in_gguf(chance, values), bert_encoding(pieces, True), specials, "x.gguf", tuple(pieces[5:]), ((2,), (3,))
    )


# SentencePiece

Scored = tuple[str, float, int]
"""Spelling, score, kind."""


def _sentence_pieces(chance: random.Random, fallback: bool, kinds: Sequence[int]) -> list[Scored]:
    """The unknown, two control tokens, bytes, and pieces of every kind that is allowed."""
    signs = ["▁", *(sign for sign in _SIGNS if chance.random() < 0.9)]
    longer = ["".join(chance.choices(signs, k=chance.randint(2, 4))) for _ in range(100)]
    pieces = dict.fromkeys([*signs, *longer, "▁the", "日" * 50])
    outside: list[Scored] = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    outside += [(f"<0x{value:02X}>", 0.0, _BYTE) for value in range(256)] if fallback else []
    # Without a zero byte, by which programs tell what is no text.
    known = [-number / 7 for number in range(1, 1000) if 0 not in struct.pack("<f", -number / 7)]
    scores = chance.sample(known, len(pieces))
    return [
        *outside,
        *(
            (p, score, chance.choice(kinds) if len(p) > 1 or chance.random() < 0.2 else 1)
            for p, score in zip(pieces, scores, strict=True)
        ),
    ]


def _spelt(pieces: Sequence[Scored]) -> tuple[str, ...]:
    return tuple(piece.replace("▁", " ") for piece, _, kind in pieces if kind in (1, _USER_DEFINED, _UNUSED))


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _message(fields: Iterable[tuple[int, int | float | bytes]]) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def _model(pieces: Sequence[Scored], trainer: dict[int, int], normaliser: dict[int, Any], sparse: bool) -> bytes:
    """A ``.model``; ``sparse``: fields in another order, without those that say what is so anyway."""
    usual = {3: 1, 24: 0, 35: 0} if trainer else {}
    body: list[tuple[int, bytes]] = []
    for piece, score, kind in pieces:
        fields: list[tuple[int, int | float | bytes]] = [(1, piece.encode()), (2, score), (3, kind)]
        if sparse:
            fields = [one for one in reversed(fields) if one not in ((2, 0.0), (3, 1))]
        body.append((1, _message(fields)))
    said = {**usual, **trainer}
    if not sparse:
        ends = [(2, _message(said.items())), (3, _message({3: 1, 4: 1, 5: 1, **normaliser}.items()))]
        return _message([*body, *ends])
    # Nothing in front is a zero byte, by which it would be seen that it is no text.
    begin = {number: value for number, value in said.items() if usual.get(number) != value} | {1000: b"x"}
    end = {number: value for number, value in reversed(normaliser.items()) if value != 1} | {99: 300}
    return _message([(2, _message(begin.items())), *body, (3, _message(end.items()))])


def _sentencepiece(data: bytes) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str]]:
    """What the library makes of texts, and of ids."""
    made = library("sentencepiece").SentencePieceProcessor(model_proto=data)
    return lambda s: list(made.encode(s)), lambda ids: str(made.decode(ids))


def sentencepiece(chance: random.Random) -> Foreign:
    """Every model and flag, pieces of every kind, with characters that become others and without."""
    fallback = chance.random() < 0.5
    pieces = _sentence_pieces(chance, fallback, (1, 1, 1, 1, _USER_DEFINED, _UNUSED))
    trainer = {3: chance.choice((1, 1, 2, 2, 3, 4)), 24: int(chance.random() < 0.2), 35: int(fallback)}
    normaliser: dict[int, Any] = {number: int(chance.random() < 0.5) for number in (3, 4)} | {5: 1}
    if chance.random() < 0.6:
        normaliser[2] = character_map(chance)
    data = [_model(pieces, trainer, normaliser, sparse) for sparse in (False, True)]
    writings = [writing({name: one}, name) for name, one in zip(("x.model", "x"), data, strict=True)]
    encode, decode = _sentencepiece(data[0])
    specials = {"<unk>": 0, "<s>": 1, "</s>": 2}
    return Foreign(tuple(writings), encode, specials, "x.model", _spelt(pieces), decode=decode)


def gguf_sentences(chance: random.Random) -> Foreign:
    """Both of SentencePiece's models that llama.cpp knows."""
    unigram = chance.random() < 0.5
    fallback = not unigram and chance.random() < 0.5  # for llama.cpp, what no piece of a Unigram spells is unknown
    pieces = _sentence_pieces(chance, fallback, (1, 1, 1, _UNUSED) if unigram else (1,))
    space, trims = chance.random() < 0.5, unigram and chance.random() < 0.5
    values: Json = {
        "ggml.model": "t5" if unigram else "llama",
        "ggml.tokens": [piece for piece, _, _ in pieces],
        "ggml.scores": [score for _, score, _ in pieces],
        "ggml.token_type": [kind for _, _, kind in pieces],
        "ggml.add_space_prefix": space,
        "ggml.remove_extra_whitespaces": trims,
        "ggml.unknown_token_id": (4, 0),
        "ggml.eos_token_id": (4, 2),
    }
    normaliser: dict[int, Any] = {3: int(space), 4: int(trims), 5: 1}
    if unigram and chance.random() < 0.6:
        normaliser[2] = character_map(chance)
        values["ggml.precompiled_charsmap"] = [(0, value) for value in normaliser[2]]
    model = _model(pieces, {3: 1 if unigram else 2, 35: int(fallback)}, normaliser, False)
    encode, decode = _sentencepiece(model)
    frame: tuple[tuple[int, ...], tuple[int, ...]] = ((), (2,)) if unigram else ((1,), ())
    specials = {"<unk>": 0, "<s>": 1, "</s>": 2}
    return Foreign(_in_gguf(chance, values), encode, specials, "x.gguf", _spelt(pieces), frame, decode)


FORMATS: Final[tuple[Callable[[random.Random], Foreign], ...]] = (
    gguf_pairs,
    gguf_words,
    gguf_sentences,
    sentencepiece,
)
