"""SentencePiece's ``.model``: read and written so that the library and the description give the same ids."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import pytest
from corelm_tokenizers import formats
from corelm_tokenizers.charsmap import CharacterMap, SentencePieceNormaliser
from corelm_tokenizers.formats import protobuf, sentencepiece_model
from described import encoder, normaliser
from hypothesis import given
from hypothesis import strategies as st

from corelm.errors import UserError

sentencepiece = pytest.importorskip("sentencepiece")

TEXT = [
    "The quick brown fox jumps over the lazy dog, and it isn't 2024 any more.",
    "Hello world! Hello, worlds...  two  spaces; I saw the girl with a telescope.",
    "Ünïcödé naïve café, „Straße“, élève; 北京欢迎你, こんにちは world 12345.",
] * 8
PLAIN: dict[str, object] = {}
LLAMA = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
}
SYMBOLS = {
    "user_defined_symbols": ["<sep>", "<cls>", "a b", "\u0301", "he", "<user>"],
    "control_symbols": ["<ctl>"],
    "treat_whitespace_as_suffix": True,
}
GEMMA = {"add_dummy_prefix": False, "normalization_rule_name": "nfkc_cf", "pad_id": 3, "byte_fallback": True}
ACROSS = {"split_by_whitespace": False, "normalization_rule_name": "nmt_nfkc_cf", "user_defined_symbols": ["▁the"]}
OPTIONS = {"plain": PLAIN, "llama": LLAMA, "symbols": SYMBOLS, "gemma": GEMMA, "across": ACROSS}
TYPES = ("unigram", "bpe", "char", "word")
TEXTS = [
    *TEXT[:3],
    "",
    " ",
    "   ",
    "a  b ",
    "▁x ▁",
    "<s>a</s>",
    "<sep>hi<sep> a b",
    "  <cls>x<ctl>",
    "\x00",
    "\x00\x00 a",
    "ab<unk>",
    "<0x41>",
    "ﬀ①½ \u3000",
    "a\u0301 he\u0301llo",
    "<user><user>  b",
    "tab\there\r\nand 👩‍👩‍👧 \U0001f1e9\U0001f1ea",
]


@cache
def trained(kind: str, options: str) -> bytes:
    written = io.BytesIO()
    size = {"char": 380, "word": 400}.get(kind, 420)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=written,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=4,
        num_threads=1,
        **OPTIONS[options],
    )
    return written.getvalue()


def read(data: bytes) -> formats.Found:
    return sentencepiece_model.found_in(Path("x.model"), sentencepiece_model.read(data))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", TYPES)
def test_ids_are_those_of_the_library(kind, options, tmp_path):
    data = trained(kind, options)
    (tmp_path / "any.name").write_bytes(data)
    found, library = formats.read(tmp_path / "any.name"), sentencepiece.SentencePieceProcessor(model_proto=data)
    assert found.end_of_text == "</s>"
    assert len(found.description["model"]["pieces"]) == library.get_piece_size()
    encode, normalise = encoder(found), normaliser(found)
    for text in TEXTS:
        assert normalise.normalise(text) == normalise.aligned(text)[0] == library.normalize(text)
        assert encode(text) == library.encode(text), text


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", TYPES)
def test_what_is_written_says_the_same_to_the_library_and_to_us(kind, options, tmp_path):
    data = trained(kind, options)
    found = read(data)
    assert formats.write(found, tmp_path / "new.model") == [tmp_path / "new.model"]
    assert formats.read(tmp_path / "new.model") == found
    old, new = (
        sentencepiece.SentencePieceProcessor(model_proto=proto)
        for proto in (data, (tmp_path / "new.model").read_bytes())
    )
    assert [old.encode(text) for text in TEXTS] == [new.encode(text) for text in TEXTS]
    assert (old.eos_id(), old.unk_id()) == (new.eos_id(), new.unk_id())


def unused(data: bytes, every: int) -> bytes:
    """The same model, every so manieth normal piece of more than one character unused."""
    model = sentencepiece_model.read(data)
    for number, (piece, score, kind) in enumerate(model.pieces):
        if kind == "normal" and len(piece) > 1 and number % every == 0:
            model.pieces[number] = piece, score, "unused"
    return sentencepiece_model.message(model)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "word"])
def test_unused_pieces_never_come_out(kind):
    data = unused(trained(kind, "llama"), 3)
    library, encode = sentencepiece.SentencePieceProcessor(model_proto=data), encoder(read(data))
    assert any(kind == "unused" for _, _, kind in read(data).description["model"]["pieces"])
    for text in TEXTS:
        assert encode(text) == library.encode(text)


@cache
def pair(kind: str, options: str):
    """The library, our normaliser, our encoder."""
    data = trained(kind, options)
    return sentencepiece.SentencePieceProcessor(model_proto=data), normaliser(read(data)), encoder(read(data))


SIGNS = st.one_of(
    st.sampled_from(" ▁aé\u0301\u0308\u3000\x00\t\r\nﬁ①カ゛ﾞ\u1100\u1161\u11a8</s>"),
    st.characters(exclude_categories=["Cs"]),
)


@pytest.mark.parametrize("options", ["plain", "symbols", "across"])
@given(text=st.text(SIGNS, max_size=30))
def test_any_text_is_normalised_as_by_the_library(options, text):
    library, ours, _ = pair("unigram", options)
    wanted = library.normalize(text)
    assert ours.normalise(text) == wanted
    aligned, spans = ours.aligned(text)
    assert aligned == wanted and len(spans) == len(aligned)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert spans == sorted(spans)


@given(text=st.text(SIGNS, max_size=40))
def test_any_text_gets_the_librarys_ids(text):
    for kind in ("unigram", "bpe"):
        library, _, encode = pair(kind, "across")
        assert encode(text) == library.encode(text)


def test_spaces_stay_where_nothing_is_to_be_escaped():
    ours = SentencePieceNormaliser(None, escape_whitespaces=False, remove_extra_whitespaces=True)
    assert ours.normalise("  a  b ") == ours.aligned("  a  b ")[0] == " a b"


def altered(data: bytes, **changes: object) -> bytes:
    model = sentencepiece_model.read(data)
    for name, value in changes.items():
        setattr(model, name, value)
    pieces = [(1, {1: piece.encode(), 2: score, 3: kinds[kind]}) for piece, score, kind in model.pieces]
    trainer = {3: model.model_type, 35: int(model.byte_fallback)}
    parts = [*pieces, (2, trainer), (3, {2: model.charsmap})]
    return b"".join(
        protobuf.field(number, b"".join(protobuf.field(key, value) for key, value in fields.items()))
        for number, fields in parts
    )


kinds = {name: number for number, name in sentencepiece_model.KINDS.items()}
PIECES = [("<unk>", 0.0, "unknown"), ("a", -1.0, "normal"), ("b", -2.0, "normal")]
BROKEN = {
    "two pieces claim one spelling": (PIECES + [("a", -3.0, "normal")], {}, "piece 3: 'a' is piece 1 already"),
    "an empty piece": (PIECES + [("", -3.0, "normal")], {}, "piece 3: it is empty"),
    "a score that is none": (PIECES + [("c", float("nan"), "normal")], {}, "piece 3 .'c'.: its score is nan"),
    "no unknown": (PIECES[1:], {}, "no piece stands for what is unknown"),
    "two unknowns": (PIECES + [("?", 0.0, "unknown")], {}, "pieces 0 and 3 both stand"),
    "no pieces": ([], {}, "it has no pieces"),
    "bytes missing": (PIECES, {"byte_fallback": True}, "'<0x00>': it is missing, and 255 more"),
    "a byte too many": (PIECES + [("<0x41>", 0.0, "byte")], {}, "although byte_fallback is off"),
    "a broken map": (PIECES, {"charsmap": b"\x10\0\0\0abc"}, "precompiled_charsmap: the map of characters"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_contradictions_are_named_with_their_place(name, tmp_path):
    pieces, changes, message = BROKEN[name]
    path = tmp_path / "broken.model"
    path.write_bytes(altered(b"", pieces=pieces, **changes))
    with pytest.raises(UserError, match=message) as error:
        sentencepiece_model.describe(path)
    assert str(path) in error.value.message and error.value.remedy


def test_a_denormaliser_is_refused_by_name(tmp_path):
    spec = protobuf.field(5, protobuf.field(2, b"anything"))
    (tmp_path / "x.model").write_bytes(trained("bpe", "llama") + spec)
    with pytest.raises(UserError, match="it has a denormaliser"):
        formats.read(tmp_path / "x.model")


def test_a_length_that_lies_is_named_with_its_byte(tmp_path):
    data = bytearray(trained("bpe", "llama"))
    data[1] = 0x7F
    (tmp_path / "x.model").write_bytes(data[:60])
    with pytest.raises(
        UserError, match="byte 0: read as a SentencePiece model, field 1 claims 127 bytes, only 58 are left"
    ):
        formats.read(tmp_path / "x.model")


@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_never_crashes(data):
    whole = trained("unigram", "plain")
    cut = bytearray(whole[: data.draw(st.integers(0, len(whole)), label="length")])
    for _ in range(data.draw(st.integers(0, 3), label="changes")):
        if cut:
            cut[data.draw(st.integers(0, min(len(cut), 4000) - 1))] = data.draw(st.integers(0, 255))
    said = "byte 0: nothing is wrong"
    try:
        read(bytes(cut))
    except ValueError as error:
        said = str(error)
    except UserError:
        pass
    assert said.startswith("byte ")


def trie(units: dict[int, int]) -> bytes:
    """A trie of 128 units, most of them empty; its root has its children at their own bytes."""
    raw = struct.pack("<128I", *(units.get(place, 0) for place in range(128)))
    return struct.pack("<I", len(raw)) + raw


KEY = 1 << 8


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "shorter than its header"),
        (struct.pack("<I", 4000) + b"abcdefgh", "claims 4000 bytes of trie, 8 are there"),
        (trie({}) + b"\xff\0", "no UTF-8 at byte 0"),
        # "a" leads to "aa", "aaa", …
        (trie({97: 97 | 97 << 10}) + b"x\0", "no end"),
        # The value of "a" stands behind the replacements, inside of a character, nowhere.
        (trie({97: 97 | KEY | 1 << 10, 96: 9}) + b"x\0", "points at 9"),
        (trie({97: 97 | KEY | 1 << 10, 96: 1}) + "é\0".encode(), "into a character"),
        (trie({97: 97 | KEY | 1000 << 10}) + b"x\0", "is broken"),
    ],
)
def test_a_broken_map_of_characters_is_refused(blob, message):
    with pytest.raises(ValueError, match=message):
        CharacterMap(blob)


@given(data=st.data())
def test_a_damaged_map_is_refused_or_read_but_never_crashes(data):
    whole = sentencepiece_model.read(trained("unigram", "plain")).charsmap
    cut = bytearray(whole[: data.draw(st.sampled_from([len(whole), len(whole) - 1, 5000, 20]))])
    for _ in range(3):
        cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = SentencePieceNormaliser(CharacterMap(bytes(cut)))
    except ValueError:
        return
    assert isinstance(made.normalise("ﬁ a\u0301 ①カ゛"), str)


@pytest.mark.data
@pytest.mark.parametrize("name", ["test_model.model", "test_ja_model.model"])
def test_models_from_elsewhere(name, data):
    path = data / "sentencepiece-models" / name
    found, library = formats.read(path), sentencepiece.SentencePieceProcessor(model_file=str(path))
    encode = encoder(found)
    for text in (data / "sentencepiece-texts" / "botchan.txt").read_text(encoding="utf-8").split("\n")[:40]:
        assert encode(text) == library.encode(text)
    for text in (data / "udhr" / "udhr_jpn.txt").read_text(encoding="utf-8").split("\n")[:40]:
        assert encode(text) == library.encode(text)
