"""Byte-level vocabularies in the form of the ``tokenizers`` library, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from corelm_tokenizers.byte_letters import byte_values
from corelm_tokenizers.byte_letters import spelling as spelling
from corelm_tokenizers.patterns import PatternName, spelt_out
from corelm_tokenizers.vocabulary import Merge, pieces_of


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
    values = byte_values()
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
    if '"BPE"' not in text:
        return None
    try:
        data = json.loads(text)
        pattern = pattern_of(data)
        if pattern is None:
            return None
        merges = merges_of(data)
        specials = [token["content"] for token in data["added_tokens"]]
        # What isn't said in exactly these words might mean something else: a prefix space, a normaliser, other ids.
        if json.loads(to_json(merges, specials, pattern)) != data:
            return None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    return merges, specials, pattern


def pattern_of(data: dict[str, Any]) -> PatternName | None:
    """How a description cuts words; None where it is none of ours, which is quickly seen of large ones.

    Raises:
        AttributeError, IndexError, KeyError, TypeError: it is no description.
    """
    ids = data["model"]["vocab"]
    if any(ids[letter] != value for value, letter in enumerate(spelling())):
        return None  # our bytes come first, in order
    if data["normalizer"] is not None or data["model"]["ignore_merges"]:
        return None
    steps = data["pre_tokenizer"].get("pretokenizers", [data["pre_tokenizer"]])
    if steps[-1]["use_regex"]:
        return None
    if len(steps) == 1:
        return "none"
    cut = steps[0]["pattern"]["Regex"]
    names: tuple[PatternName, ...] = get_args(PatternName)
    # Classes are spelt out as ranges in all of ours.
    return next((name for name in names if r"\x{" in cut and name != "none" and cut == spelt_out(name)), None)
