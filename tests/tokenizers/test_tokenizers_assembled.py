"""``assembled``: any ``tokenizer.json`` from scratch, with the ids and the text that the library gives."""

from __future__ import annotations

import json
import random
import sysconfig
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import grammar
import pytest
import regex
import tokenizers
from corelm_tokenizers.assembled import Assembled, Assembly
from corelm_tokenizers.description import read
from corelm_tokenizers.formats.sentencepiece_model import describe
from corelm_tokenizers.normal_forms import Form
from corelm_tokenizers.normalising import PerCharacter, normaliser
from corelm_tokenizers.oniguruma import Expression
from corelm_tokenizers.tokenizers_json import TokenizersJson
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from corelm.errors import UserError
from corelm.kinds.tokenizer import read_tokenizers_json

PLAIN: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"},
}
SIGNS = st.lists(
    st.sampled_from([*grammar.SIGNS, *"\u0315\u05ae\u0313\u093c\u1100\u1161\u11a8\u0f71\u0f72"]), max_size=12
).map("".join)
PAIRS: dict[str, Any] = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}


def assembled(description: dict[str, Any] | str) -> Assembled:
    made = Assembled(Assembled.Config())
    made._set(description if isinstance(description, str) else json.dumps(description))
    return made


def token(number: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True} | plain | flags


def alike(description: dict[str, Any]) -> bool:
    """Whether added tokens become alike in normalising; then the library takes any of them."""
    steps = normaliser(read(description).normalizer)
    spelt = [t["content"] for t in description["added_tokens"] if t["normalized"]]
    spelt = [steps.normalise(content) if steps else content for content in spelt]
    return len({*spelt, ""}) <= len(spelt)


def libraries(description: dict[str, Any]) -> dict[bool, tokenizers.Tokenizer]:
    made = {allow: tokenizers.Tokenizer.from_str(json.dumps(description)) for allow in (False, True)}
    made[False].encode_special_tokens = True
    return made


@given(seed=st.integers(0, 2**64))
def test_every_description_that_is_drawn_gives_the_librarys_ids_and_text(seed: int) -> None:
    draw = random.Random(seed)
    description = grammar.description(draw)
    try:
        library, ours = libraries(description), Assembly(description)
    except BaseException as error:
        # The library panics, or this one refuses by name.
        if isinstance(error, UserError):
            assert error.code.endswith("not-representable"), error  # noqa: PT017
        return
    if alike(description):
        return
    # What a normaliser makes of an added token is spelt for it by the library; here it is spelt as it was added.
    changed = {t["id"] for t in description["added_tokens"] if t["normalized"] or t["special"]}
    for _ in range(6):
        text = grammar.text(draw)
        for allow, theirs in library.items():
            try:
                wanted = theirs.encode(text, add_special_tokens=False).ids
            except BaseException:
                continue
            ids = ours.encode(text, allow_special=allow)
            assert ids == wanted, (text, description)
            pieces = ours.encode_with_spans(text, allow_special=allow)
            assert [piece.id for piece in pieces] == ids
            assert all(0 <= piece.start <= piece.end <= len(text) for piece in pieces)
            if changed.isdisjoint(ids):
                assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), (text, description)
            assert "".join(ours.stream(iter(ids))) == ours.decode(ids)


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}


def byte_pairs(**steps: Any) -> dict[str, Any]:
    """Byte-level pairs that are learnt from a few words."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(["the cat and the rat, naïve café 漢字 🙂🙂"], trainer)
    data: dict[str, Any] = json.loads(library.to_str())
    return data | {"pre_tokenizer": BYTES, "decoder": BYTES} | steps


@given(text=SIGNS)
def test_spans_of_byte_pairs_are_the_librarys(text: str) -> None:
    description = byte_pairs()
    found = tokenizers.Tokenizer.from_str(json.dumps(description)).encode(text)
    pieces = assembled(description).encode_with_spans(text)
    assert [(piece.start, piece.end) for piece in pieces] == found.offsets


@pytest.mark.parametrize(
    ("normalizer", "text", "spans"),
    [
        ({"type": "NFC"}, "xe\u0301y", [(0, 1), (1, 3), (1, 3), (3, 4)]),
        ({"type": "Strip", "strip_left": True, "strip_right": True}, "  ab ", [(2, 3), (3, 4)]),
        ({"type": "Prepend", "prepend": "_"}, "ab", [(0, 0), (0, 1), (1, 2)]),
        ({"type": "Replace", "pattern": {"String": "ab"}, "content": "x"}, "cabc", [(0, 1), (1, 3), (3, 4)]),
        ({"type": "NFKC"}, "ﬁ", [(0, 1), (0, 1)]),
        ({"type": "Lowercase"}, "İ", [(0, 1), (0, 1), (0, 1)]),
    ],
)
def test_spans_are_those_of_the_text_as_it_was_given(
    normalizer: dict[str, Any], text: str, spans: list[tuple[int, int]]
) -> None:
    description = byte_pairs(normalizer=normalizer)
    description["model"] |= {"merges": []}
    found = assembled(description).encode_with_spans(text)
    assert [(piece.start, piece.end) for piece in found] == spans


@given(data=st.binary(max_size=20))
def test_any_bytes_come_back(data: bytes) -> None:
    ours = assembled(byte_pairs())
    assert ours.every_byte
    assert ours.decode_bytes(ours.encode_bytes(data)) == data


def test_bytes_that_are_no_text_are_refused_where_a_normaliser_would_touch_them() -> None:
    ours = assembled(byte_pairs(normalizer={"type": "NFC"}))
    with pytest.raises(UserError, match="byte 2 "):
        ours.encode_bytes(b"ab\xff")


ENGINES = [Assembled, TokenizersJson]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("post", "frame"),
    [
        (None, ((), ())),
        ({"type": "BertProcessing", "sep": ["?", 2], "cls": ["a", 0]}, ((0,), (2,))),
        (
            {"type": "RobertaProcessing", "sep": ["?", 2], "cls": ["a", 0], "trim_offsets": True}
            | {"add_prefix_space": True},
            ((0,), (2,)),
        ),
        (
            {
                "type": "Sequence",
                "processors": [
                    BYTES,
                    {
                        "type": "TemplateProcessing",
                        "single": [
                            {"SpecialToken": {"id": "a", "type_id": 0}},
                            {"Sequence": {"id": "A", "type_id": 0}},
                            {"SpecialToken": {"id": "b", "type_id": 0}},
                        ],
                        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                        "special_tokens": {
                            "a": {"id": "a", "ids": [0, 1], "tokens": ["a", "b"]},
                            "b": {"id": "b", "ids": [1], "tokens": ["b"]},
                        },
                    },
                ],
            },
            ((0, 1), (1,)),
        ),
    ],
)
def test_the_frame_is_what_the_library_puts_around_a_text(engine: Any, post: Any, frame: Any) -> None:
    description = PLAIN | {"post_processor": post}
    made = engine(engine.Config())
    made._set(json.dumps(description))
    assert made.frame == frame
    assert made.encode("a") == [0]
    theirs = tokenizers.Tokenizer.from_str(json.dumps(description)).encode("a").ids
    assert theirs == [*frame[0], 0, *frame[1]]


def test_a_piece_that_spells_a_special_token_is_text() -> None:
    """The library can't tell; it is asked, and refused rather than believed."""
    vocabulary = {"[": 0, "]": 1, "x": 2, "[x]": 3, "?": 4}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"}
    described = PLAIN | {"model": words, "added_tokens": [token(3, "[x]")]}
    assert assembled(described).encode("[x]") == [4]
    assert assembled(described).encode("[x]", allow_special=True) == [3]
    library = TokenizersJson(TokenizersJson.Config())
    library._set(json.dumps(described))
    with pytest.raises(UserError, match="spells the special token"):
        library.encode("[x]")
    scored = [[piece, -1.0] for piece in vocabulary]
    pieces = {"type": "Unigram", "vocab": scored, "unk_id": 4}
    assert assembled(described | {"model": pieces}).encode("[x]") == [0, 2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "Magic"}}, "the type 'Magic' is not known"),
        ({"normalizer": {"type": "NFC", "strength": 2}}, "normalizer.NFC.strength: no such field"),
        ({"decoder": {"type": "CTC", "pad_token": "a"}}, "the type 'CTC' is not known"),
        ({"pre_tokenizer": {"type": "UnicodeScripts"}}, "UnicodeScripts can't be run exactly"),
        ({"model": PAIRS | {"vocab": {"a": 0, "b": 1}}}, "merge 0 \\('a' 'b'\\) needs the piece 'ab'"),
        ({"model": PAIRS | {"vocab": {"a": 0, "b": 0, "ab": 1}}}, "'a' and 'b' both claim the id 0"),
        ({"model": PAIRS | {"vocab": {"a": 0, "b": 1, "ab": 5}}}, "none has 2, but 'ab' has 5"),
        ({"model": PAIRS | {"merges": ["a b c"]}}, "merge 0 is 'a b c'"),
        ({"model": PAIRS | {"dropout": 0.1}}, "at random"),
        ({"model": PAIRS | {"unk_token": "<unk>"}}, "the unknown token '<unk>' is no piece"),
        ({"model": PAIRS | {"byte_fallback": True, "vocab": PAIRS["vocab"] | {"<0x00>": 3}}}, "no piece <0x01>"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "no unknown"),
        ({"added_tokens": [token(1, "x")]}, "'x' and the piece 'b' both claim the id 1"),
        ({"added_tokens": [token(3, "x"), token(3, "y")]}, "'x' and 'y' both claim the id 3"),
        ({"added_tokens": [token(9, "x")]}, "claims the id 9, but 3 is its place"),
        ({"added_tokens": [token(3, "")]}, "is empty"),
        (
            {"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "BPEDecoder"}]}},
            "BPEDecoder after",
        ),
    ],
)
def test_what_contradicts_itself_or_is_unknown_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Assembly(PLAIN | change)


def test_a_file_that_is_no_json_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(UserError, match="not JSON"):
        Assembled.load(Assembled.Config(), tmp_path)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\p{Script=Han}", "property"),
        (r"(a)\1", r"escape \\1"),
        ("(?x: a)", "group"),
        ("a{2,3}?", "lazy count"),
        ("a**", "repetition of a repetition"),
        ("[]a]", "empty class"),
        ("(a", "no pattern"),
        ("a)", "not opened"),
        (r"\K", "escape"),
        ("[[:punct:]]", "class"),
    ],
)
def test_patterns_that_mean_something_else_are_refused(pattern: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        Expression(pattern)


CHARACTERS = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)


def found_by_library(pattern: str) -> set[str]:
    cut = pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", invert=True)
    parts = (CHARACTERS[at : at + 4096] for at in range(0, len(CHARACTERS), 4096))
    return {character for part in parts for word, _ in cut.pre_tokenize_str(part) for character in word}


FEW = [r"\p{L}", r"\p{Ll}"]
MANY = [
    *(r"\p{N}", r"\s", r"\w", r"[^\W\d]", r"\p{Lo}"),
    *(
        rf"\p{{{name}}}"
        for name in ("Lu", "Lt", "Lm", "M", "Mn", "P", "S", "Z", "C", "Cn", "Nd", "Sm", "Zs", "Pc", "Cf")
    ),
    *(rf"\p{{{name}}}" for name in ("Han", "Hiragana", "Katakana", "Hangul", "Latin", "Cyrillic", "Greek", "Arabic")),
    *("[[:alpha:]]", "[[:lower:]]", "[[:alnum:]]", "[[:xdigit:]]", r"\h", r"\W", r"\P{L}", r"\p{^Lo}"),
]


@pytest.mark.parametrize("pattern", [*FEW, *(pytest.param(one, marks=pytest.mark.heavy) for one in MANY)])
def test_classes_are_oniguruma_s_for_every_character(pattern: str) -> None:
    ours = {CHARACTERS[start:end] for start, end in Expression(pattern).matches(CHARACTERS)}
    assert ours == found_by_library(pattern)


@pytest.mark.parametrize("name", ["NFC", "NFKD", "Lowercase", "StripAccents", "Nmt"])
def test_every_character_is_normalised_as_the_library_does(name: str) -> None:
    library, ours = getattr(normalizers, name)(), normaliser(read(PLAIN | {"normalizer": {"type": name}}).normalizer)
    assert ours is not None
    touched = CHARACTERS[:0x1F800] + CHARACTERS[0x2F000:0x2F300] + CHARACTERS[0xDF800:0xDFB00]
    for at in range(0, len(touched), 2**14):
        apart = " ".join(touched[at : at + 2**14])
        if ours.normalise(apart) != library.normalize_str(apart):
            wrong = [c for c in apart if ours.normalise(c) != library.normalize_str(c)]
            assert not wrong, [hex(ord(c)) for c in wrong[:10]]
            raise AssertionError(f"together, those from {at:x} on")


@pytest.fixture(scope="module")
def map_of_characters(data: Path) -> str:
    """SentencePiece's own rules (NMT, NFKC) as a published model has them."""
    said = describe(data / "sentencepiece-models" / "test_model.model").description["normalizer"]
    blob: str = said["precompiled_charsmap"]
    return blob


@given(text=SIGNS | st.text(max_size=6))
def test_a_precompiled_map_is_read_as_the_library_reads_it(map_of_characters: str, text: str) -> None:
    said = {"type": "Precompiled", "precompiled_charsmap": map_of_characters}
    library, ours = precompiled(map_of_characters), steps_of(json.dumps(said))
    assert ours.normalise(text) == library.normalize_str(text)
    made, owners = ours.aligned(text)
    assert made == ours.normalise(text)
    assert len(owners) == len(made)


@cache
def steps_of(said: str) -> Any:
    return normaliser(read(PLAIN | {"normalizer": json.loads(said)}).normalizer)


@cache
def precompiled(blob: str) -> Any:
    said = {"type": "Precompiled", "precompiled_charsmap": blob}
    return tokenizers.Tokenizer.from_str(json.dumps(PLAIN | {"normalizer": said})).normalizer


@given(text=SIGNS)
def test_what_a_normaliser_changes_adds_up_to_what_it_makes(text: str) -> None:
    steps = [Form("NFC"), Form("NFKD"), PerCharacter(str.upper)]
    for step in steps:
        made, owners = step.aligned(text)
        assert made == step.normalise(text)
        assert len(owners) == len(made)
        assert all(0 <= start <= end <= len(text) for start, end in owners)


def test_python_knows_all_that_the_library_normalises() -> None:
    assert unicodedata.unidata_version >= "14"
    assert regex.search(r"\P{Cn}", "\u1c89"), "regex is older than Unicode 16.0"


def test_descriptions_go_to_the_part_that_learns_them_then_to_this_one_then_to_the_library() -> None:
    assert isinstance(read_tokenizers_json(json.dumps(byte_pairs())), Assembled)
    scripts = byte_pairs(pre_tokenizer={"type": "UnicodeScripts"})
    assert isinstance(read_tokenizers_json(json.dumps(scripts)), TokenizersJson)


def texts_of(folder: Path) -> dict[str, str]:
    """Hard texts, all languages, a piece of the encyclopaedia, and code."""
    files = [*(folder / "unicode-stress").glob("*.txt"), *(folder / "udhr").rglob("*.txt")]
    files += [*(folder / "wikitext-2").rglob("*.txt")][:2]
    files += [Path(sysconfig.get_paths()["stdlib"]) / name for name in ("argparse.py", "typing.py")]
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in files}


@pytest.mark.parametrize("name", ["hf_tokenizer.json", "tiny_bpe_tokenizer.json"])
@pytest.mark.parametrize("size", [2_000, pytest.param(1_000_000, marks=pytest.mark.heavy)])
def test_real_texts_give_the_librarys_ids(data: Path, name: str, size: int) -> None:
    text = (data / "tiny-tokenizers" / name).read_text(encoding="utf-8")
    ours, library = assembled(text), tokenizers.Tokenizer.from_str(text)
    library.encode_special_tokens = True
    for source, whole in texts_of(data).items():
        ids = ours.encode(whole[:size])
        assert ids == library.encode(whole[:size], add_special_tokens=False).ids, source
        assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False), source


@settings(max_examples=20)
@given(text=st.text(max_size=20))
def test_saved_it_is_the_same(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("saved")
    ours = assembled(byte_pairs())
    ours.save(folder)
    loaded = Assembled.load(Assembled.Config(), folder)
    assert loaded.encode(text) == ours.encode(text)
    assert loaded.as_tokenizers_json() == ours.as_tokenizers_json()
