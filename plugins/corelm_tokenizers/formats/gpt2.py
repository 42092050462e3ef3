"""GPT-2's two files: ``encoder.json`` or ``vocab.json`` with the ids, ``vocab.bpe`` or ``merges.txt`` with the merges.

Radford et al., 2019. The files say neither how text is cut nor which tokens are special; both are GPT-2's then, unless
the class that ``tokenizer_config.json`` beside them names is another one's. Tokens that no merge makes and that are no
single byte are special where they stand in ``<…>`` or ``[…]``, as GPT-2's ``<|endoftext|>`` and RoBERTa's ``<mask>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import regex

from corelm_tokenizers.formats import checks, schema, words
from corelm_tokenizers.formats.found import Found, damaged, refused
from corelm_tokenizers.library import spelling

NAMES: Final = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
"""File of the ids, file of the merges."""

END: Final = "<|endoftext|>"

_MARKED: Final = regex.compile(r"<[^<>]+>|\[[^\[\]]+\]")

_ROBERTA_LIKE: Final = frozenset(("Roberta", "Bart", "Longformer", "LED"))
_QWEN_LIKE: Final = frozenset(("Qwen2",))
_GPT2_LIKE: Final = frozenset(("GPT2", "GPTNeo", "GPTNeoX", "CodeGen", "Whisper")) | _ROBERTA_LIKE


def partner(path: Path) -> tuple[Path, Path] | None:
    """The file of ids and the file of merges, given either of them or their folder; None: there is no such pair."""
    if path.is_dir():
        pairs = [(path / ids, path / merges) for ids, merges in NAMES]
    else:
        pairs = [(path.with_name(ids), path.with_name(merges)) for ids, merges in NAMES if path.name in (ids, merges)]
        head, tail = path.stem, path.suffix
        if "vocab" in head and tail == ".json":
            pairs.append((path, path.with_name(f"{head.replace('vocab', 'merges')}.txt")))
        if "merges" in head and tail == ".txt":
            pairs.append((path.with_name(f"{head.replace('merges', 'vocab')}.json"), path))
    return next((pair for pair in pairs if all(one.is_file() for one in pair)), None)


def describe(ids: Path, merges: Path, config: Mapping[str, Any] | None = None) -> Found:
    """Read the two files.

    Args:
        ids: the JSON with the id of each token.
        merges: one merge per line, its parts with a space between.
        config: what ``tokenizer_config.json`` beside them says.

    Raises:
        UserError: a file is damaged, they don't fit each other, or the class is one whose way of cutting isn't known.
    """
    vocabulary = checks.ids_of(ids, checks.read_json(ids))
    checks.check_no_holes(ids, vocabulary.values())
    pairs, line = read_merges(merges)
    checks.check_byte_level(ids, pairs, vocabulary)
    checks.check_merges(merges, pairs, vocabulary, line)
    class_name = str((config or {}).get("tokenizer_class") or "GPT2Tokenizer")
    family = class_name.removesuffix("Fast").removesuffix("Tokenizer")
    if family not in _GPT2_LIKE | _QWEN_LIKE:
        raise refused(
            ids,
            f"tokenizer_config.json names {class_name}, whose way of cutting text these files don't say",
            "Give the model's tokenizer.json.",
        )
    special = special_tokens(vocabulary, pairs)
    checks.check_no_gaps(merges, pairs, vocabulary, special, line)
    added = [schema.added_token(vocabulary[piece], piece) for piece in special]
    begin, end = vocabulary.get("<s>"), vocabulary.get("</s>")
    around = family in _ROBERTA_LIKE and begin is not None and end is not None
    spaced = bool((config or {}).get("add_prefix_space"))
    gpt2 = schema.byte_level(use_regex=True, add_prefix_space=spaced)
    said = byte_pairs(
        vocabulary,
        pairs,
        words.byte_words([words.QWEN2]) if family in _QWEN_LIKE else gpt2,
        normalizer={"type": "NFC"} if family in _QWEN_LIKE else None,
        post_processor=schema.frame([("<s>", begin)], [("</s>", end)]) if around else None,  # type: ignore[list-item]
        added=added,
    )
    return Found(said, END if END in special else "</s>" if "</s>" in special else None)


def byte_pairs(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    pre_tokenizer: schema.Json,
    *,
    ignore_merges: bool = False,
    **parts: Any,
) -> schema.Json:
    """The description of a byte-level tokenizer with merges."""
    model = schema.pairs_model(vocabulary, merges, ignore_merges=ignore_merges)
    return schema.description(model, pre_tokenizer=pre_tokenizer, decoder=schema.byte_level(use_regex=True), **parts)


def special_tokens(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> list[str]:
    """Tokens in brackets that no text spells, in the order of ids."""
    spelt = {left + right for left, right in merges}.union(spelling())
    return [piece for piece in vocabulary if piece not in spelt and _MARKED.fullmatch(piece)]


def read_merges(path: Path) -> tuple[list[tuple[str, str]], int]:
    """The merges of a file, and the number of the first one's line.

    Raises:
        UserError: a line is no merge.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start}", "it is no UTF-8") from error
    lines = [line.removesuffix("\r") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    first = 1 if lines and lines[0].startswith("#version") else 0
    pairs = []
    for number, line in enumerate(lines[first:], first + 1):
        left, space, right = line.partition(" ")
        if not left or not space or not right or " " in right:
            raise damaged(path, f"line {number}", f"two tokens with a space between are expected, not {line[:60]!r}")
        pairs.append((left, right))
    return pairs, first + 1


def write(found: Found, path: Path) -> None:
    """Write the two files; ``path`` is that of the ids.

    Raises:
        UserError: the description says what the files can't.
    """
    merges_path = path.with_name(dict(NAMES).get(path.name, "merges.txt"))
    model = found.description["model"]
    special = {token["content"]: token["id"] for token in found.description["added_tokens"]}
    vocabulary = checks.ids_of(path, model.get("vocab", {}) | special if model["type"] == "BPE" else {})
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model.get("merges", [])]
    checks.check_no_gaps(merges_path, merges, vocabulary, special)
    said = byte_pairs(vocabulary, merges, words.byte_words([words.GPT2]))
    same = all(said["model"][key] == model.get(key, said["model"][key]) for key in said["model"] if key != "vocab")
    cut = found.description["normalizer"] or words.patterns_of(found.description["pre_tokenizer"])
    if not same or cut != (words.GPT2,) or set(special) != set(special_tokens(vocabulary, merges)):
        raise refused(
            path,
            f"these files mean GPT-2's way of cutting text, byte-level merges and special tokens in <…>; "
            f"the description ({model['type']}) says something else",
            "Write a tokenizer.json instead.",
        )
    with path.open("w", encoding="utf-8", newline="\n") as file:
        json.dump(vocabulary, file, ensure_ascii=False)
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    merges_path.write_text(f"#version: 0.2\n{lines}", encoding="utf-8", newline="\n")
