"""Properties of tokenizers: what they make of descriptions that they have not written, of every sort of step."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any, Final

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tokenizer.maps import character_map
from corelm.conformance.texts import TRAPS, text
from corelm.errors import UserError

Json = dict[str, Any]

_SIGNS: Final = "abcdehnrstABST'123 .,!?#-_▁Ġéßſ漢字日🙂<>|k한\u09cb"
_BYTES: Final = tuple(f"<0x{value:02X}>" for value in range(256))
_ADDED: Final = "<k>"
_LEVEL: Final = tuple(
    {"add_prefix_space": space, "trim_offsets": False, "use_regex": True} for space in (False, True)
)
_PATTERNS: Final = (
    *({"String": literal} for literal in (" ", "a", "the", "▁", "  ")),
    *({"Regex": expression} for expression in (r"\s+", r"\p{L}+", r"\d", r"[^\s\p{L}\p{N}]+", r"\w+")),
    {"Regex": r"'s|'t| ?\p{L}+| ?\p{N}+|\s+(?!\S)|\s+"},
    *({"Regex": expression} for expression in (r"[a[bc]]+", r"[[:alpha:]&&[^ab]]+", r"(?i:THE)|^a", r"\bt|\h{1,2}")),
)
_NORMALIZERS: Final[tuple[Json, ...]] = (
    *({"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")),
    *({"type": "Strip", "strip_left": left, "strip_right": not left} for left in (False, True)),
    *({"type": "Replace", "pattern": pattern, "content": content} for pattern in _PATTERNS for content in ("", "bc")),
    *({"type": "Prepend", "prepend": prefix} for prefix in ("▁", "x")),
    *(
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(character_map(random.Random(seed))).decode()}
        for seed in range(3)
    ),
    *(
        {
            "type": "BertNormalizer",
            "clean_text": clean,
            "handle_chinese_chars": clean,
            "lowercase": not clean,
            "strip_accents": strip,
        }
        for clean in (False, True)
        for strip in (None, True, False)
    ),
)
_BEHAVIOURS: Final = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
CUTS: Final[tuple[Json, ...]] = (
    *({"type": name} for name in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")),
    *({"type": "ByteLevel", **said} for said in _LEVEL),
    *(
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
        for scheme in ("always", "first", "never")
        for split in (False, True)
    ),
    *(
        {"type": "Split", "pattern": pattern, "behavior": behaviour, "invert": invert}
        for pattern in _PATTERNS
        for behaviour in _BEHAVIOURS
        for invert in (False, True)
    ),
    *({"type": "Digits", "individual_digits": each} for each in (False, True)),
    *({"type": "Punctuation", "behavior": behaviour} for behaviour in _BEHAVIOURS),
    *({"type": "CharDelimiterSplit", "delimiter": delimiter} for delimiter in " a"),
    *({"type": "FixedLength", "length": length} for length in (1, 3)),
)
_SPELLERS: Final[tuple[Json, ...]] = (
    *({"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": True} for s in ("always", "never")),
    *({"type": "WordPiece", "prefix": "##", "cleanup": cleanup} for cleanup in (False, True)),
    {"type": "BPEDecoder", "suffix": "</w>"},
    *({"type": "Strip", "content": content, "start": 1, "stop": 0} for content in (" ", "a")),
    *({"type": "Replace", "pattern": pattern, "content": content} for pattern in _PATTERNS for content in ("", "bc")),
)
_SPACE: Final[Json] = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
_JOINERS: Final[tuple[tuple[Json, ...], ...]] = (
    (),
    ({"type": "Fuse"},),
    ({"type": "ByteFallback"}, {"type": "Fuse"}),
    ({"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
    ({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True},),
    ({"type": "Fuse"}, _SPACE),
    ({"type": "ByteFallback"}, {"type": "Fuse"}, _SPACE, {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
    ({"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "th"}, "content": "x"}),
)
"""How pieces become a text. What stands behind in the last two sees joined pieces: bytes needn't concatenate then."""


def description(draw: Draw) -> Json:
    """A ``tokenizer.json`` of a few hundred ids: any normalisers, cuts and decoders, one of the four models."""
    chance = random.Random(draw.seed())
    named = draw.choice("model", list(_MODELS))
    model = _MODELS[named](chance)
    flags = {name: chance.random() < 0.5 for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    told = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": len(model["vocab"]), "content": _ADDED, **flags}],
        "normalizer": _sequence(_steps(chance, _NORMALIZERS), "normalizers"),
        "pre_tokenizer": _sequence(_steps(chance, CUTS), "pretokenizers"),
        "post_processor": None,
        "decoder": _sequence([*_steps(chance, _SPELLERS), *chance.choice(_JOINERS)], "decoders"),
        "model": model,
    }
    draw.note(
        "description", {name: told[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "decoder")}
    )
    return told


def _steps(chance: random.Random, kinds: tuple[Json, ...]) -> list[Json]:
    """None or some: of each type as often as of any other."""
    types = sorted({step["type"] for step in kinds})
    chosen = [chance.choice(types) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
    return [chance.choice([step for step in kinds if step["type"] == name]) for name in chosen]


def _sequence(steps: list[Json], named: str) -> Json | None:
    """Nothing, the step, or the steps one after the other."""
    if len(steps) > 1:
        return {"type": "Sequence", named: steps}
    return steps[0] if steps else None


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _words(chance: random.Random) -> list[str]:
    """Most signs, and some words of them."""
    signs = [sign for sign in _SIGNS if chance.random() < 0.9]
    return [*signs, *("".join(chance.choices(signs, k=chance.randint(2, 3))) for _ in range(60)), "the", "an", "▁the"]


def _pairs(chance: random.Random) -> Json:
    prefix, suffix = chance.choice(("", "", "##")), chance.choice(("", "", "</w>"))
    signs = [sign for sign in _SIGNS if chance.random() < 0.9]
    joinable = [start + sign + end for sign in signs for start in {"", prefix} for end in {"", suffix}]
    pieces, merges, fallback = list(joinable), [], chance.random() < 0.3
    for _ in range(80):
        left, right = chance.choice(joinable), chance.choice(joinable)
        if right.startswith(prefix) and not (suffix and left.endswith(suffix)) and [left, right] not in merges:
            merges.append([left, right])
            joinable += [left + right.removeprefix(prefix)] * 3
            pieces.append(joinable[-1])
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": chance.choice((None, "[UNK]")),
        "continuing_subword_prefix": prefix or None,
        "end_of_word_suffix": suffix or None,
        "fuse_unk": chance.random() < 0.5,
        "byte_fallback": fallback,
        "ignore_merges": chance.random() < 0.3,
        "vocab": _numbered(["[UNK]", *pieces, *(_BYTES if fallback else ())]),
        "merges": merges,
    }


def _longest_first(chance: random.Random) -> Json:
    words = _words(chance)
    return {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": chance.choice((100, 5)),
        "vocab": _numbered(["[UNK]", *words, *(f"##{word}" for word in words)]),
    }


def _whole_words(chance: random.Random) -> Json:
    return {"type": "WordLevel", "vocab": _numbered(["[UNK]", *_words(chance)]), "unk_token": "[UNK]"}


def _likeliest(chance: random.Random) -> Json:
    fallback = chance.random() < 0.5
    pieces = dict.fromkeys(["[UNK]", *_words(chance), *(_BYTES if fallback else ())])
    scored = [[piece, round(-10 * chance.random(), 3)] for piece in pieces]
    return {"type": "Unigram", "unk_id": 0, "vocab": scored, "byte_fallback": fallback}


_MODELS: Final[dict[str, Callable[[random.Random], Json]]] = {
    "BPE": _pairs,
    "WordPiece": _longest_first,
    "WordLevel": _whole_words,
    "Unigram": _likeliest,
}


def _as_the_library(told: str) -> Any:
    """What the library tokenizers makes of a description, with special tokens and without."""
    import tokenizers

    made = [tokenizers.Tokenizer.from_str(told) for _ in range(2)]
    made[False].encode_special_tokens = True
    return made


@property_of(
    "tokenizer",
    statement="A tokenizer.json that it reads means what the library tokenizers makes of it, whatever the steps: the "
    "same ids, and the same text of them; its spans and its stream agree with that.",
    formula="∀ description d: read(d) = None or encode_{read(d)}(s) = encode_d(s), decode_{read(d)} ∘ encode_d = decode_d "
    "∘ encode_d",
    catches="a normaliser that is skipped or comes second, a cut on the wrong side, the first step taken for the last, "
    "decoders that see pieces one by one",
    tier="bit",
    examples=300,
)
def descriptions_mean_what_they_say(part: PartUnderTest, draw: Draw) -> None:
    """Drawn from the grammar of steps; what the library doesn't take says nothing."""
    told = json.dumps(description(draw))
    tokenizer = _read(part, told)
    library, added = _as_the_library(told), tokenizer.vocab_size - 1
    for s in (text(draw) + draw.choice("trap", [*TRAPS, _ADDED]), f"a {_ADDED} b{_ADDED}'s -{_ADDED}1 12"):
        for allow in (False, True):
            wanted = library[allow].encode(s, add_special_tokens=False).ids
            try:
                ids = tokenizer.encode(s, allow_special=allow)
            except UserError:
                continue  # refused, where the engine can't do otherwise
            assert ids == wanted, f"{s!r} becomes {ids}, in the library {wanted} (allow_special={allow})"
            pieces = tokenizer.encode_with_spans(s, allow_special=allow)
            assert [piece.id for piece in pieces] == ids, f"with spans {s!r} becomes {pieces}, without {ids}"
            assert all(0 <= piece.start <= piece.end <= len(s) for piece in pieces), f"{pieces} leave {s!r}"
            back = tokenizer.decode(ids)
            assert "".join(tokenizer.stream(iter(ids))) == back, f"{ids} are streamed otherwise than {back!r}"
            if added not in ids:  # the library normalises the spelling of such tokens
                theirs = library[allow].decode(ids, skip_special_tokens=False)
                assert back == theirs, f"{ids} are {back!r}, in the library {theirs!r}"


def _read(part: PartUnderTest, told: str) -> Any:
    """The part, having read a description."""
    tokenizer = part.cls.from_tokenizers_json(told)
    if tokenizer is None:
        raise NotApplicable("it doesn't read this description")
    return tokenizer
