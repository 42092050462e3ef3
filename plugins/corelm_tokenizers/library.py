"""Byte-level vocabularies in the form of the ``tokenizers`` library, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from corelm_tokenizers.learning import ALPHABET
from corelm_tokenizers.patterns import PatternName, spelt_out
from corelm_tokenizers.vocabulary import Merge, pieces_of


@cache
def spelling() -> str:
    """The character that the library writes for each byte: itself if it prints in Latin-1, else one from U+0100 on."""
    printing = ALPHABET[:188]
    others = sorted(ALPHABET[188:])
    return "".join(chr(value if value in printing else 256 + others.index(value)) for value in range(256))


def untrained(pattern: PatternName, model: models.BPE | None = None) -> tokenizers.Tokenizer:
    """A tokenizer of the library that cuts words by ``pattern``."""
    made = tokenizers.Tokenizer(models.BPE() if model is None else model)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if pattern == "none":
        made.pre_tokenizer = bytes_only
    else:
        cut = pre_tokenizers.Split(tokenizers.Regex(spelt_out(pattern)), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_only])
    made.decoder = decoders.ByteLevel()
    return made


def with_merges(merges: Sequence[Merge], pattern: PatternName) -> tokenizers.Tokenizer:
    """A tokenizer of the library with our ids and merges, without special tokens."""
    spell = spelling()
    pieces = ["".join(spell[value] for value in piece) for piece in pieces_of(merges)[0]]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    pairs = [(pieces[left], pieces[right]) for left, right in merges]
    return untrained(pattern, models.BPE(vocab=vocabulary, merges=pairs))


def merges_of(data: dict[str, Any]) -> list[Merge]:
    """The merges of a ``tokenizer.json``, as ids of ours: bytes, then pieces in the order of their birth."""
    values = {character: value for value, character in enumerate(spelling())}
    numbers = {bytes([value]): value for value in range(256)}
    merges = []
    for pair in data["model"]["merges"]:
        left, right = (bytes(values[character] for character in piece) for piece in pair)
        merges.append((numbers[left], numbers[right]))
        numbers.setdefault(left + right, len(numbers))
    return merges


def to_json(merges: Sequence[Merge], specials: Sequence[str], pattern: PatternName) -> str:
    """A ``tokenizer.json`` that gives the same ids."""
    made = with_merges(merges, pattern)
    made.add_special_tokens([tokenizers.AddedToken(special, normalized=False) for special in specials])
    return str(made.to_str(pretty=True))


def from_json(text: str) -> tuple[list[Merge], list[str], PatternName] | None:
    """Merges, special tokens and pattern of a ``tokenizer.json``; None unless ``to_json`` would write it so."""
    try:
        data = json.loads(text)
        merges = merges_of(data)
        specials = [token["content"] for token in data["added_tokens"]]
        patterns: tuple[PatternName, ...] = get_args(PatternName)
        # What isn't said in exactly these words might mean something else: a prefix space, a normaliser, other ids.
        matching = (name for name in patterns if json.loads(to_json(merges, specials, name)) == data)
        pattern = next(matching, None)
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return None if pattern is None else (merges, specials, pattern)
