"""Descriptions in the schema of ``tokenizer.json``: what several formats say in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]


def description(
    model: Json,
    *,
    normalizer: Json | None = None,
    pre_tokenizer: Json | None = None,
    post_processor: Json | None = None,
    decoder: Json | None = None,
    added: Sequence[Json] = (),
) -> Json:
    """A whole description."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


def added_token(number: int, content: str, *, special: bool = True, **options: bool) -> Json:
    """One added token."""
    token: Json = {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return token | {"normalized": not special, "special": special} | options


def pairs_model(
    vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]], *, ignore_merges: bool = False
) -> Json:
    """Byte-pair encoding by an ordered list of merges."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": dict(sorted(vocabulary.items(), key=lambda entry: entry[1])),
        "merges": [list(pair) for pair in merges],
    }


def byte_level(*, use_regex: bool = False, add_prefix_space: bool = False) -> Json:
    """Bytes as characters; with ``use_regex`` words are first cut by GPT-2's pattern."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": False,
        "use_regex": use_regex,
    }


def split(pattern: str, behaviour: str = "Isolated") -> Json:
    """Cut by a regular expression."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behaviour, "invert": False}


def sequence(kind: str, steps: Sequence[Json]) -> Json:
    """Steps one after the other; ``kind`` is the key under which they stand."""
    return steps[0] if len(steps) == 1 else {"type": "Sequence", kind: list(steps)}


def frame(before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]) -> Json | None:
    """A post-processor that puts tokens around a text; None: there are none to put."""
    if not before and not after:
        return None

    def special(name: str, kind: int) -> Json:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> Json:
        return {"Sequence": {"id": name, "type_id": kind}}

    def around(name: str, kind: int) -> list[Json]:
        opening, closing = ([special(token, kind) for token, _ in side] for side in (before, after))
        return [*opening, text(name, kind), *closing]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in [*before, *after]
        },
    }


def sentence_decoder(*, prefix: bool, byte_fallback: bool) -> Json:
    """Pieces of SentencePiece back to text: ``▁`` is a space; the one before the first word goes with ``prefix``."""
    steps: list[Json] = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    steps += [{"type": "ByteFallback"}] if byte_fallback else []
    steps.append({"type": "Fuse"})
    steps += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return sequence("decoders", steps)
