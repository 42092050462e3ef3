"""tiktoken's rank files: on each line a token's bytes in base64, a space, its rank, which is its id.

The pairs that are merged are those that spell a token, the lowest rank first, the leftmost of equals. From bytes on,
a token can be reached in one way only: merging inside of it goes on independently of what stands around, so that the
last two parts are always the same. That pair is its merge, and merges in the order of ranks give the same ids. Tokens
that merging never makes are found whole; tiktoken looks a whole word up first, so the description does
(``ignore_merges``).

The file says neither how text is cut nor which tokens are special. Both are known for published files by the number of
their ranks (``KNOWN``). For others ``NAME.json`` beside ``NAME`` may say it, in the words of ``tiktoken.Encoding``:
``{"pat_str": …, "special_tokens": {…}}``. A small file whose name ends in ``.model`` is else read as Meta's loader for Llama 3
reads any: with that model's pattern, and its 256 special tokens after the ranks.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

from corelm_tokenizers.formats import checks, schema, words
from corelm_tokenizers.formats.found import Found, damaged, refused
from corelm_tokenizers.formats.gpt2 import END, byte_pairs
from corelm_tokenizers.library import spelling


@dataclass(frozen=True)
class Told:
    """What a rank file doesn't say.

    Attributes:
        pattern: cuts text into words.
        specials: ids of the special tokens.
        end: the one that ends a text.
        before: those that stand before a text.
        normalizer: what is done to a text first.
    """

    pattern: str
    specials: Mapping[str, int]
    end: str | None = None
    before: tuple[str, ...] = ()
    normalizer: str | None = None


def _numbered(names: list[str], first: int) -> dict[str, int]:
    return {name: first + number for number, name in enumerate(names)}


_LLAMA3: Final = 128000


def _llama3(first: int = _LLAMA3) -> Told:
    """Meta's Llama 3 (names of 3.1, where 3 has reserved ones), its special tokens after so many ranks."""
    reserved = [f"<|reserved_special_token_{number}|>" for number in range(248)]
    names = ["<|begin_of_text|>", "<|end_of_text|>", *reserved[:2], "<|finetune_right_pad_id|>", reserved[2]]
    names += ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    specials = _numbered([*names, *reserved[3:]], first)
    return Told(words.LLAMA3, specials, "<|end_of_text|>", ("<|begin_of_text|>",))


def _llama4() -> Told:
    """Meta's Llama 4."""

    def reserved(first: int, after: int, of: str = "") -> list[str]:
        return [f"<|{of}reserved_special_token_{number}|>" for number in range(first, after)]

    text, vision, reasoning = "text_post_train_", "vision_", "reasoning_"
    names = ["begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix"]
    names += ["header_start", "header_end", "eom", "eot", "step"]
    said = [f"<|{name}|>" for name in names] + reserved(0, 6, text)
    said += ["<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>", *reserved(8, 69, text)]
    said += [
        "<|image_start|>",
        "<|image_end|>",
        *reserved(0, 2, vision),
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    ]
    said += [*reserved(2, 6, vision), "<|image|>", *reserved(6, 7, vision), "<|patch|>", *reserved(7, 1048, vision)]
    said += [*reserved(0, 8, reasoning), "<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"]
    specials = _numbered([*said, *reserved(0, 2048 - len(said))], 200000)
    return Told(words.O200K, specials, "<|end_of_text|>", ("<|begin_of_text|>",))


def _openai(pattern: str, **specials: int) -> Told:
    return Told(pattern, {f"<|{name}|>": number for name, number in specials.items()}, END)


_QWEN = _numbered([END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205))], 151643)

KNOWN: Final[dict[int, tuple[str, Told]]] = {
    50256: ("gpt2, r50k_base", _openai(words.GPT2, endoftext=50256)),
    50280: ("p50k_base", _openai(words.GPT2, endoftext=50256)),
    100256: (
        "cl100k_base",
        _openai(
            words.CL100K,
            endoftext=100257,
            fim_prefix=100258,
            fim_middle=100259,
            fim_suffix=100260,
            endofprompt=100276,
        ),
    ),
    _LLAMA3: ("Llama 3", _llama3()),
    151643: ("Qwen", Told(words.QWEN2, _QWEN, END, normalizer="NFC")),
    199998: ("o200k_base", _openai(words.O200K, endoftext=199999, endofprompt=200018)),
    200000: ("Llama 4", _llama4()),
}
"""What is known of published files, by their number of ranks."""


def describe(path: Path, told: Told | None = None) -> Found:
    """Read a rank file.

    Args:
        path: the file.
        told: what it doesn't say; None: by the rules above.

    Raises:
        UserError: it is damaged, or nobody says how it cuts text.
    """
    ranks = read(path)
    told = told or _beside(path) or _known(path, len(ranks))
    ranks.pop(b"", None)  # Whisper's file has one, which no text spells
    checks.check_every_byte(path, ranks)
    vocabulary = {spelt(token): rank for token, rank in ranks.items()}
    taken = set(ranks.values())
    for name, number in told.specials.items():
        if number in taken:
            raise damaged(path, f"id {number}", f"both a rank and the special token {name!r} claim it")
        taken.add(number)
    last = max(vocabulary.values())
    # Ids that a published tokenizer leaves out between its special tokens stay reserved.
    reserved = {f"<|reserved_{at}|>": at for at in range(last + 1, max(taken)) if at not in taken}
    checks.check_no_holes(path, [*taken, *reserved.values()], "ranks")
    specials = dict(told.specials) | reserved
    between = {name: number for name, number in specials.items() if number < last}
    added = [schema.added_token(number, name) for name, number in specials.items()]
    said = byte_pairs(
        vocabulary | between,
        [(spelt(left), spelt(right)) for left, right in merges_of(ranks)],
        words.byte_words([told.pattern]),
        ignore_merges=True,
        normalizer={"type": told.normalizer} if told.normalizer else None,
        post_processor=schema.frame([(name, told.specials[name]) for name in told.before], []),
        added=added,
    )
    return Found(said, told.end)


def _known(path: Path, size: int) -> Told:
    if size in KNOWN:
        return KNOWN[size][1]
    if path.suffix == ".model" and size < _LLAMA3:
        return _llama3(size)
    known = ", ".join(f"{number} ({name})" for number, (name, _) in KNOWN.items())
    raise refused(
        path,
        f"a rank file doesn't say how text is cut into words, and none with {size} ranks is known (known: {known})",
        f'Write {path.name}.json beside it: {{"pat_str": "…", "special_tokens": {{"<|endoftext|>": {size}}}}}.',
    )


def _beside(path: Path) -> Told | None:
    """What ``NAME.json`` beside the file says."""
    told = path.with_name(f"{path.name}.json")
    if not told.is_file():
        return None
    said = checks.read_json(told)
    unknown = sorted(set(said) - {"name", "pat_str", "special_tokens", "explicit_n_vocab"})
    if unknown or not isinstance(said.get("pat_str"), str) or not isinstance(said.get("special_tokens", {}), dict):
        what = (
            f"{unknown[0]!r} is not known" if unknown else "pat_str (text) and special_tokens (object) are expected"
        )
        raise damaged(told, "the object", what, "Say what tiktoken.Encoding is given: pat_str and special_tokens.")
    specials = checks.ids_of(told, said.get("special_tokens", {}), "special ")
    return Told(said["pat_str"], specials, END if END in specials else None)


def read(path: Path) -> dict[bytes, int]:
    """Ranks by the tokens' bytes.

    Raises:
        UserError: a line isn't base64 and a number, or two lines contradict each other.
    """
    ranks: dict[bytes, int] = {}
    owners: dict[int, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        coded, space, rank = line.partition(b" ")
        try:
            token = b"" if coded == b"=" else base64.b64decode(coded, validate=True)
        except binascii.Error as error:
            raise damaged(path, f"line {number}", f"{coded[:40]!r} is no base64 ({error})") from error
        if not space or not rank.isdigit() or not coded:
            raise damaged(path, f"line {number}", f"base64, a space and a rank are expected, not {line[:60]!r}")
        if token in ranks:
            raise damaged(path, f"line {number}", f"the token {token!r} has rank {ranks[token]} already")
        other = owners.setdefault(int(rank), number)
        if other != number:
            raise damaged(path, f"line {number}", f"rank {int(rank)} is that of line {other} already")
        ranks[token] = int(rank)
    if not ranks:
        raise damaged(path, "the end", "it has no ranks")
    return ranks


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that makes each token that merging can make, in the order of ranks."""
    found = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) == 2:
            if token[:1] in ranks and token[1:] in ranks:
                found.append((token[:1], token[1:]))
        elif len(token) > 2:
            parts = _merged(token, ranks)
            if parts is not None:
                found.append(parts)
    return found


def _merged(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two parts that are left when everything inside of a token has been merged but the token itself."""
    rank = ranks.get
    bounds = list(range(len(token) + 1))
    pairs = [rank(token[at : at + 2], inf) for at in range(len(token) - 1)]
    while len(pairs) > 1:
        best = min(pairs)
        if best == inf:
            return None
        at = pairs.index(best)
        del bounds[at + 1], pairs[at]
        if at < len(pairs):
            pairs[at] = rank(token[bounds[at] : bounds[at + 2]], inf)
        if at:
            pairs[at - 1] = rank(token[bounds[at - 1] : bounds[at + 1]], inf)
    return token[: bounds[1]], token[bounds[1] :]


_SPELLING: Final = dict(enumerate(spelling()))


def spelt(token: bytes) -> str:
    """Bytes as GPT-2's files write them."""
    return token.decode("latin-1").translate(_SPELLING)


def write(found: Found, path: Path) -> None:
    """Write a rank file, and ``NAME.json`` with pattern and special tokens beside it.

    Raises:
        UserError: ranks can't say it: merges in another order than their tokens' ids, a normaliser, several patterns.
    """
    model = found.description["model"]
    values = {character: value for value, character in enumerate(spelling())}
    added = {token["content"]: token["id"] for token in found.description["added_tokens"]}
    vocabulary: dict[str, int] = model.get("vocab", {}) if model["type"] == "BPE" else {}
    try:
        ranks = {
            bytes(values[character] for character in piece): number
            for piece, number in vocabulary.items()
            if piece not in added
        }
    except KeyError as error:
        raise refused(path, f"its tokens aren't bytes: {error} is none", "Write a tokenizer.json instead.") from error
    cut = None if found.description["normalizer"] else words.patterns_of(found.description["pre_tokenizer"])
    pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model.get("merges", [])]
    same = bool(ranks) and pairs == [(spelt(left), spelt(right)) for left, right in merges_of(ranks)]
    if cut is None or len(cut) != 1 or not same or not (model.get("ignore_merges") or len(pairs) == len(ranks) - 256):
        raise refused(
            path,
            "ranks mean byte-level merges in the order of ids and one pattern that cuts words; "
            f"the description ({model['type']}) says something else",
            "Write a tokenizer.json instead.",
        )
    lines = (
        base64.b64encode(token) + b" %d\n" % rank for token, rank in sorted(ranks.items(), key=lambda one: one[1])
    )
    path.write_bytes(b"".join(lines))
    told: dict[str, Any] = {"pat_str": cut[0], "special_tokens": added}
    beside = path.with_name(f"{path.name}.json")
    beside.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
