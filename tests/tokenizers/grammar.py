"""Descriptions drawn from the grammar of ``tokenizer.json``, and texts that are hard on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from corelm_tokenizers.byte_letters import spelling

Json = dict[str, Any]

SIGNS = [
    *"aabbcdeAB'SsTt12 39  \n\t.,!?#-_▁|<>[]",
    *"éÉßſﬁΣςİ漢字アカが🙂\u200d\u200b\xa0\u3000\r\x00\x07\x7f\ufffd\u0378²½१١٣।،한\u0327\u1ab0\u0898ʕ㋿𐊠ﷺａＡ①\u2028\x85\x1cǄǅ",
    *[
        "\U00016ea0",
        "\U000323b0",
        "\U0001fbf3",
        "e\u0301",
        "か\u3099",
        "\u1112\u1161\u11ab",
        "\u0301\u0327",
        "\u11935",
    ],
    *["👩‍👩‍👧", "\r\n", "'s", "'LL", "n't", " .", "##a", "</w>", "<0x41>", "<s>", "<sp>", "<k>", "don't"],
]
LITERALS = ["a", " ", "ab", ".", "▁", "é", "  ", "漢"]
EXPRESSIONS = [
    *[r"\s+", r"\p{L}+", r"\d", r"[^\s\p{L}\p{N}]+", r"\p{N}{1,3}", "a|b", r"[一-龥]+", r"\w+", "(?i:'s)|."],
    r"'s|'t| ?\p{L}+| ?\p{N}+|\s+(?!\S)|\s+",
]
EMPTY_TOO = ["(?=a)", r"\s*", "$", "^"]
BEHAVIOURS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def text(draw: random.Random) -> str:
    return "".join(draw.choice(SIGNS) for _ in range(draw.randint(0, 10)))


def pattern(draw: random.Random, *more: str) -> Json:
    return draw.choice(
        [{"String": draw.choice(LITERALS)}, {"Regex": draw.choice([*EXPRESSIONS, *more])}],
    )


def flag(draw: random.Random) -> bool:
    return draw.random() < 0.5


def bytes_step(draw: random.Random) -> Json:
    return {key: flag(draw) for key in ("add_prefix_space", "trim_offsets", "use_regex")}


def marks_step(draw: random.Random) -> Json:
    return {
        "replacement": "▁",
        "prepend_scheme": draw.choice(["always", "first", "never"]),
        "split": flag(draw),
    }


NORMALIZERS: dict[str, Callable[[random.Random], Json]] = {
    **dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"), lambda draw: {}),
    "Strip": lambda draw: {"strip_left": flag(draw), "strip_right": flag(draw)},
    "Replace": lambda draw: {"pattern": pattern(draw), "content": draw.choice(["", "x", " ", "▁", "ab"])},
    "Prepend": lambda draw: {"prepend": draw.choice(["▁", " ", "x"])},
    "BertNormalizer": lambda draw: {
        "clean_text": flag(draw),
        "handle_chinese_chars": flag(draw),
        "strip_accents": draw.choice([None, True, False]),
        "lowercase": flag(draw),
    },
}
CUTS: dict[str, Callable[[random.Random], Json]] = {
    **dict.fromkeys(("Whitespace", "WhitespaceSplit", "BertPreTokenizer"), lambda draw: {}),
    "ByteLevel": bytes_step,
    "Metaspace": marks_step,
    "Split": lambda draw: {
        "pattern": pattern(draw, *EMPTY_TOO),
        "behavior": draw.choice(BEHAVIOURS),
        "invert": flag(draw),
    },
    "Digits": lambda draw: {"individual_digits": flag(draw)},
    "Punctuation": lambda draw: {"behavior": draw.choice(BEHAVIOURS)},
    "CharDelimiterSplit": lambda draw: {"delimiter": draw.choice([" ", "a", "-"])},
    "FixedLength": lambda draw: {"length": draw.randint(1, 5)},
}
DECODERS: dict[str, Callable[[random.Random], Json]] = {
    **dict.fromkeys(("ByteFallback", "Fuse"), lambda draw: {}),
    "ByteLevel": bytes_step,
    "Metaspace": marks_step,
    "WordPiece": lambda draw: {"prefix": "##", "cleanup": flag(draw)},
    "BPEDecoder": lambda draw: {"suffix": "</w>"},
    # Where it takes off both ends of what is too short the library panics.
    "Strip": lambda draw: {"content": draw.choice([" ", "▁", "a"]), "start": draw.randint(0, 2), "stop": 0},
    "Replace": lambda draw: {"pattern": pattern(draw), "content": draw.choice(["", "x", " "])},
}


def step(draw: random.Random, kinds: dict[str, Callable[[random.Random], Json]], sequence: str) -> Json | None:
    """Nothing, one step, or up to three."""
    count = draw.choice([None, 0, 1, 1, 2, 3])
    if count is None:
        return None
    steps = [{"type": (name := draw.choice(list(kinds)))} | kinds[name](draw) for _ in range(count)]
    return steps[0] if count == 1 else {"type": "Sequence", sequence: steps}


def pairs_model(draw: random.Random, signs: list[str]) -> Json:
    prefix, suffix = draw.choice([None, None, None, "##"]), draw.choice([None, None, None, "</w>"])
    pieces = [*signs, *(prefix + sign for sign in signs if prefix)]
    pieces += [piece + suffix for piece in pieces if suffix]
    pieces = list(dict.fromkeys(pieces))
    joinable, merges = list(pieces), []
    for _ in range(draw.randint(0, 60)):
        left, right = draw.choice(joinable), draw.choice(joinable)
        if (prefix and not right.startswith(prefix)) or (suffix and left.endswith(suffix)) or (left, right) in merges:
            continue
        merges.append((left, right))
        joinable += [left + right[len(prefix or "") :]] * 3
    fallback = flag(draw)
    pieces += ["[UNK]", *joinable, *(f"<0x{value:02X}>" for value in range(256) if fallback)]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": draw.choice([None, "[UNK]"]),
        "continuing_subword_prefix": prefix,
        "end_of_word_suffix": suffix,
        "fuse_unk": flag(draw),
        "byte_fallback": fallback,
        "ignore_merges": flag(draw),
        "vocab": numbered(pieces),
        "merges": [list(merge) for merge in merges],
    }


def numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def model(draw: random.Random, letters: bool) -> Json:
    signs = list(dict.fromkeys([*"abcdeABstST'123 .,!?#-_▁é漢字🙂ßﬁσςx", *(spelling() if letters else "")]))
    signs = [sign for sign in signs if draw.random() < 0.93]
    words = [*signs, *("".join(draw.choices(signs, k=draw.randint(2, 4))) for _ in range(40))]
    kind = draw.choice(["BPE", "WordPiece", "WordLevel", "Unigram"])
    if kind == "BPE":
        return pairs_model(draw, signs)
    if kind == "WordLevel":
        return {"type": kind, "vocab": numbered(["[UNK]", *words]), "unk_token": "[UNK]"}
    if kind == "WordPiece":
        vocabulary = numbered(["[UNK]", *words, *(f"##{word}" for word in words)])
        longest = draw.choice([100, 5])
        return {
            "type": kind,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": longest,
            "vocab": vocabulary,
        }
    fallback = flag(draw)
    pieces = numbered(["[UNK]", *words, *(f"<0x{value:02X}>" for value in range(256) if fallback)])
    scored = [[piece, round(-10 * draw.random(), 3) if number else 0.0] for piece, number in pieces.items()]
    return {"type": kind, "unk_id": 0, "vocab": scored, "byte_fallback": fallback}


def added(draw: random.Random, size: int, known: set[str]) -> list[Json]:
    chosen = draw.sample(["<s>", "<sp>", "<k>", "<kk", "é ", "ab", "A"], draw.randint(0, 4))
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return [
        {"id": size + place, "content": content} | {name: flag(draw) for name in flags}
        for place, content in enumerate(content for content in chosen if content not in known)
    ]


def description(draw: random.Random) -> Json:
    normalizer, cut = step(draw, NORMALIZERS, "normalizers"), step(draw, CUTS, "pretokenizers")
    made = model(draw, letters="ByteLevel" in f"{normalizer}{cut}")
    vocabulary = made["vocab"]
    known = {entry[0] for entry in vocabulary} if made["type"] == "Unigram" else set(vocabulary)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added(draw, len(vocabulary), known),
        "normalizer": normalizer,
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": step(draw, DECODERS, "decoders"),
        "model": made,
    }
