"""Vocabularies in GGUF: read as llama.cpp's converter writes them, written so that its library reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers import formats
from corelm_tokenizers.formats import gguf_metadata, gguf_vocabulary, sentencepiece_model, words
from corelm_tokenizers.formats.found import Found
from described import encoder
from hypothesis import given
from hypothesis import strategies as st
from small_files import END, TEXTS, gguf, gpt2_folder
from test_formats_sentencepiece import trained
from tokenizers import pre_tokenizers

from corelm.errors import UserError


def written_by_the_library(path: Path, found: Found, pre: str = "gpt-2", **more) -> Path:
    """A GGUF as llama.cpp's converter writes one, with a tensor behind the vocabulary."""
    gguf, np = pytest.importorskip("gguf"), pytest.importorskip("numpy")
    model = found.description["model"]
    ids = model["vocab"] | {token["content"]: token["id"] for token in found.description["added_tokens"]}
    special = {token["content"] for token in found.description["added_tokens"]}
    tokens = sorted(ids, key=ids.get)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if one in special else gguf.TokenType.NORMAL for one in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(ids[END])
    writer.add_bos_token_id(ids[END])
    writer.add_chat_template("{{ messages }}")
    for key, value in more.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_that_the_library_wrote(tmp_path):
    gpt2 = formats.read(gpt2_folder(tmp_path))
    found = formats.read(written_by_the_library(tmp_path / "model.bin", gpt2))
    assert (found.end_of_text, found.chat_template) == (END, "{{ messages }}")
    assert found.description == gpt2.description
    framed = formats.read(written_by_the_library(tmp_path / "model.bin", gpt2, add_bos_token=True))
    library = tokenizers.Tokenizer.from_str(json.dumps(framed.description))
    assert library.encode("a").ids[0] == library.token_to_id(END)


@pytest.mark.parametrize(
    "pre", ["llama-bpe", "qwen2", "deepseek-llm", "deepseek-v3", "falcon", "starcoder", "bloom", "default"]
)
def test_words_are_cut_as_the_name_says(pre, tmp_path):
    gpt2 = formats.read(gpt2_folder(tmp_path))
    found = formats.read(written_by_the_library(tmp_path / "x.gguf", gpt2, pre))
    steps = [pre_tokenizers.Split(tokenizers.Regex(step), "isolated") for step in words.CUTS[pre]]
    library = tokenizers.Tokenizer.from_str(json.dumps(gpt2.description))
    library.model.ignore_merges = pre == "llama-bpe"
    library.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(False, use_regex=False)])
    for text in TEXTS[:4]:
        assert encoder(found)(text) == library.encode(text, add_special_tokens=False).ids
    formats.write(found, tmp_path / "y.gguf")
    assert formats.read(tmp_path / "y.gguf") == found


@pytest.mark.parametrize(("kind", "options"), [("bpe", "llama"), ("unigram", "plain")])
def test_sentence_pieces_in_a_gguf(kind, options, tmp_path):
    gguf, sentencepiece = pytest.importorskip("gguf"), pytest.importorskip("sentencepiece")
    (tmp_path / "x.model").write_bytes(trained(kind, options))
    found = formats.read(tmp_path / "x.model")
    formats.write(found, tmp_path / "x.gguf")
    again = formats.read(tmp_path / "x.gguf")
    assert again == found
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "x.model"))
    assert [encoder(again)(text) for text in TEXTS] == [library.encode(text) for text in TEXTS]
    if options == "plain":
        return  # the library takes seconds to read a map of characters
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert fields["tokenizer.ggml.tokens"].contents() == [one[0] for one in found.description["model"]["pieces"]]
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert fields["general.architecture"].contents() == "llama"  # llama.cpp reads nothing without


def test_unigram_with_bytes_is_refused_whoever_wrote_the_gguf(tmp_path):
    (tmp_path / "x.model").write_bytes(trained("bpe", "llama"))
    formats.write(formats.read(tmp_path / "x.model"), tmp_path / "x.gguf")
    values = gguf_metadata.read(tmp_path / "x.gguf", "")
    gguf_metadata.write(tmp_path / "y.gguf", values | {"tokenizer.ggml.model": "t5"})
    with pytest.raises(UserError, match="pieces for bytes, which llama.cpp doesn't write"):
        formats.read(tmp_path / "y.gguf")


def test_what_a_gguf_cannot_say_is_refused(tmp_path):
    (tmp_path / "x.model").write_bytes(trained("bpe", "symbols"))
    with pytest.raises(UserError, match="a GGUF can't say how this SentencePiece model normalises or cuts"):
        formats.write(formats.read(tmp_path / "x.model"), tmp_path / "x.gguf")


def test_a_gguf_without_ids_of_its_own_has_the_usual_ones(tmp_path):
    pieces = [*sentencepiece_model.read(trained("bpe", "llama")).pieces, ("", 0.0, "unused")]
    kinds = {name: number for number, name in sentencepiece_model.KINDS.items()}
    values = {
        "model": "llama",
        "tokens": [piece for piece, _, _ in pieces],
        "scores": [score for _, score, _ in pieces],
        # As converters write them that only know which tokens are special.
        "token_type": [kinds["control" if kind == "unknown" else kind] for _, _, kind in pieces],
    }
    gguf_metadata.write(tmp_path / "x", {f"tokenizer.ggml.{key}": value for key, value in values.items()})
    found = formats.read(tmp_path / "x")
    said = found.description["model"]["pieces"]
    assert (said[0][2], said[-1][0], found.end_of_text) == ("unknown", f"[EMPTY_{len(pieces) - 1}]", "</s>")
    assert found.description["post_processor"]["special_tokens"]["<s>"]["ids"] == [1]


def test_of_several_pieces_that_stand_for_what_is_unknown_the_one_that_is_named_does(tmp_path):
    values = {"pre": None, "merges": None, "model": "llama", "tokens": ["<unk>", "a", "[PAD2]", "[PAD3]"]}
    values |= {"scores": [0.0, -1.0, -9.0, -9.0], "unknown_token_id": 0}
    found = formats.read(gguf(tmp_path / "x.gguf", token_type=[3, 1, 2, 2], **values))
    assert [kind for _, _, kind in found.description["model"]["pieces"]] == [
        "unknown",
        "normal",
        "control",
        "control",
    ]
    values["unknown_token_id"] = None  # the one that is marked, where there is one only
    found = formats.read(gguf(tmp_path / "y.gguf", token_type=[3, 1, 2, 1], **values))
    assert [kind for _, _, kind in found.description["model"]["pieces"]] == ["control", "normal", "unknown", "normal"]


BAD_GGUF = {
    "a model that isn't known": ({"model": "rwkv"}, "tokenizer.ggml.model is 'rwkv'"),
    "no pattern": ({"pre": None}, "it has no tokenizer.ggml.pre"),
    "a pattern that isn't known": ({"pre": "kimi-k2"}, "tokenizer.ggml.pre is 'kimi-k2'"),
    "no tokens": ({"tokens": None}, "tokenizer.ggml.tokens: it has no vocabulary"),
    "a token twice": ({"tokens": ["a", "b", "a"], "merges": []}, "tokens 2: 'a' is token 0 already"),
    "kinds for others": ({"token_type": [1, 1]}, "token_type: 2 kinds for"),
    "an end that isn't there": ({"eos_token_id": 9999}, "eos_token_id: it is 9999, but the vocabulary has"),
    "a merge that isn't one": ({"merges": ["abc"]}, "merges 1: 'abc' isn't two tokens"),
    "a merge with a gap": ({"merges": ["Q ZZ"]}, "'ZZ', which it joins"),
    "text for a number": ({"eos_token_id": "x"}, "eos_token_id: int is expected, not str"),
    "no scores": ({"model": "llama", "scores": [1.0]}, "scores: 1 scores for"),
}


@pytest.mark.parametrize("name", BAD_GGUF)
def test_damaged_vocabularies_of_gguf_are_named(name, tmp_path):
    values, message = BAD_GGUF[name]
    with pytest.raises(UserError, match=message) as error:
        formats.read(gguf(tmp_path / "x.gguf", **values))
    assert "x.gguf" in error.value.message and error.value.remedy


@given(data=st.data())
def test_a_damaged_gguf_is_refused_or_read_but_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "whole.gguf"
    if not path.exists():
        gguf(path)
    cut = bytearray(path.read_bytes()[: data.draw(st.integers(8, path.stat().st_size), label="length")])
    for _ in range(data.draw(st.integers(0, 3), label="changes")):
        cut[data.draw(st.integers(4, min(len(cut), 600) - 1))] = data.draw(st.integers(0, 255))
    (path.with_name("cut.gguf")).write_bytes(cut)
    remedy = "none was needed"
    try:
        formats.read(path.with_name("cut.gguf"))
    except UserError as error:
        remedy = error.remedy
    assert remedy


def test_a_length_that_lies_is_named_with_its_byte(tmp_path):
    raw = bytearray(gguf(tmp_path / "x.gguf").read_bytes())
    raw[24:32] = (2**40).to_bytes(8, "little")
    (tmp_path / "x.gguf").write_bytes(raw)
    with pytest.raises(UserError, match=r"byte 32 .a key.: 1099511627776 bytes are expected"):
        formats.read(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF\x01\0\0\0" + bytes(16))
    with pytest.raises(UserError, match="it is GGUF version 1"):
        formats.read(tmp_path / "x.gguf")


def test_all_kinds_of_pieces_have_the_numbers_of_the_library():
    constants = pytest.importorskip("gguf").TokenType
    assert {name.upper(): number for number, name in sentencepiece_model.KINDS.items()} == {
        kind.name: int(kind) for kind in constants
    }
    assert gguf_vocabulary.PREFIX == "tokenizer."
