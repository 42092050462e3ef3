"""Folders as transformers keeps them, of the structure of published tokenizers; and ``corelm.load_tokenizer`` itself."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers import formats
from corelm_tokenizers.library_numbers import number
from hypothesis import given
from hypothesis import strategies as st
from published import FAMILIES, TEXT, qwen2, special
from small_files import bert_file, gguf, gpt2_folder, rank_lines, ranks
from test_formats_sentencepiece import TEXTS, TYPES, trained

import corelm
from corelm.errors import UserError
from corelm.kinds import Spec

transformers = pytest.importorskip("transformers")

END = "<|endoftext|>"
MORE = ["", " ", "  x  ", "</s> [SEP] <|endoftext|><eos>", "\x00\u200b\u3000x", "a\r\n\r\n b", *TEXT[:4]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("published")


def folder_of(folders: Path, name: str) -> Path:
    if not (folders / name).is_dir():
        FAMILIES[name](folders / name)
    return folders / name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_folder_is_read_as_transformers_reads_it(name, folders):
    folder = folder_of(folders, name)
    ours, theirs = corelm.load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    before, after = ours.frame
    for text in TEXT[:4]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert [*before, *ours.encode(text), *after] == theirs.encode(text)
    assert ours.vocab_size == len(theirs)
    assert set(theirs.all_special_tokens) <= set(ours.specials)
    assert ours.end_of_text == (theirs.eos_token_id if theirs.eos_token else theirs.sep_token_id)


@pytest.mark.parametrize("name", FAMILIES)
def test_text_of_a_published_folder_is_never_a_special_token(name, folders):
    ours = corelm.load_tokenizer(folder_of(folders, name))
    hidden = set(ours.specials.values()) - {ours.unknown}
    spelt = " ".join(ours.specials)
    assert not hidden & set(ours.encode(spelt)) and not hidden & set(ours.encode(spelt.replace(" ", "")))
    assert hidden & set(ours.encode(spelt, allow_special=True))


def test_a_chat_template_is_kept_as_it_is(folders, tmp_path):
    assert "[INST]" in corelm.load_tokenizer(folder_of(folders, "llama2")).config.chat_template
    assert corelm.load_tokenizer(folder_of(folders, "qwen2")).config.chat_template == "{{ messages }}"
    qwen2(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ newer }}")
    assert formats.read(tmp_path).chat_template == "{{ newer }}"


# Folders without tokenizer.json


def configured(folder: Path, **config: object) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_phi_adds_runs_of_spaces_in_a_file_of_its_own(tmp_path):
    folder = gpt2_folder(tmp_path)
    size = len(json.loads((folder / "vocab.json").read_text()))
    runs = {" " * length: size + at for at, length in enumerate(range(31, 1, -1))}
    (folder / "added_tokens.json").write_text(json.dumps(runs))
    configured(folder, tokenizer_class="CodeGenTokenizer", eos_token=END, bos_token=END, unk_token=END)
    ours = corelm.load_tokenizer(folder)
    assert ours.vocab_size == size + 30 and ours.end_of_text == ours.specials[END]
    assert runs["    "] in ours.encode("def f():\n    return")
    assert ours.decode(ours.encode("def f():\n    return")) == "def f():\n    return"


def test_roberta_stands_between_its_tokens(tmp_path):
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    plain = json.loads((gpt2_folder(tmp_path) / "vocab.json").read_text())
    order = [*names, *(piece for piece in plain if piece != END), "<mask>"]
    folder = gpt2_folder(tmp_path, vocab={piece: at for at, piece in enumerate(order)})
    configured(folder, tokenizer_class="RobertaTokenizer")
    ours = corelm.load_tokenizer(folder)
    assert ours.frame == ((0,), (2,)) and set(ours.specials) == {*names, "<mask>"} and ours.end_of_text == 2


def test_llama_2_with_its_model_alone(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer.model").write_bytes(trained("bpe", "llama"))
    config = {"bos_token": special("<s>"), "eos_token": special("</s>"), "unk_token": special("<unk>")}
    added = {"3": None, str(library_size(sentencepiece, "bpe", "llama")): special("<pad>")}
    del added["3"]
    configured(tmp_path, tokenizer_class="LlamaTokenizer", added_tokens_decoder=added, **config)
    ours = corelm.load_tokenizer(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert ours.frame == ((1,), ()) and ours.end_of_text == 2
    assert ours.specials["<pad>"] == library.get_piece_size() == ours.vocab_size - 1
    assert [ours.encode(text) for text in TEXTS] == [library.encode(text) for text in TEXTS]


def library_size(sentencepiece, kind: str, options: str) -> int:
    return sentencepiece.SentencePieceProcessor(model_proto=trained(kind, options)).get_piece_size()


def test_t5_with_its_model_alone(tmp_path):
    (tmp_path / "spiece.model").write_bytes(trained("unigram", "plain"))
    configured(tmp_path, tokenizer_class="T5Tokenizer", extra_ids=10)
    ours = corelm.load_tokenizer(tmp_path)
    assert ours.frame == ((), (2,))
    assert ours.specials["<extra_id_0>"] == ours.vocab_size - 1 == ours.specials["<extra_id_9>"] + 9


def test_qwen_2_with_its_two_files_alone(tmp_path):
    folder = gpt2_folder(tmp_path)
    size = len(json.loads((folder / "vocab.json").read_text()))
    added = {str(size - 1): special(END), str(size): special("<|im_start|>"), str(size + 1): special("<|im_end|>")}
    configured(folder, tokenizer_class="Qwen2Tokenizer", added_tokens_decoder=added, eos_token="<|im_end|>")
    ours, theirs = corelm.load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*MORE, "e\u0301 12345 I'M"]:
        assert ours.encode(text) == theirs.encode(text, split_special_tokens=True), text
    assert ours.vocab_size == len(theirs) and ours.end_of_text == theirs.eos_token_id


def test_classes_that_number_otherwise_are_refused_by_name(tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(trained("unigram", "plain"))
    configured(tmp_path, tokenizer_class="XLMRobertaTokenizer")
    with pytest.raises(UserError, match="XLMRobertaTokenizer, which gives the pieces of its .model other ids"):
        corelm.load_tokenizer(tmp_path)


# Files that contradict each other


def test_two_files_that_claim_one_id(tmp_path):
    folder = gpt2_folder(tmp_path)
    (folder / "added_tokens.json").write_text('{"<new>": 5}')
    with pytest.raises(UserError, match=r"added_tokens.json, id 5 .'<new>'.: the vocabulary has"):
        formats.read(folder)
    size = len(json.loads((folder / "vocab.json").read_text()))
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": size}))
    configured(folder, added_tokens_decoder={str(size): special("<other>")})
    with pytest.raises(UserError, match=rf"tokenizer_config.json, id {size} .*added_tokens.json has '<new>' there"):
        formats.read(folder)
    configured(folder, added_tokens_decoder={str(size + 1): special("<new>")})
    with pytest.raises(UserError, match=rf"the vocabulary has it at {size}"):
        formats.read(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": size + 3}))
    configured(folder)
    with pytest.raises(UserError, match=rf"id {size}: no token has it"):
        formats.read(folder)
    configured(folder, added_tokens_decoder={"x": special("<new>")})
    with pytest.raises(UserError, match="added_tokens_decoder 'x'"):
        formats.read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": {"a": 0, "b": 0}}, "id 0: two tokens claim it"),
        ({"merges": [["a", "zz"]]}, "merge 1 .'a zz'.: 'zz', which it joins"),
        ({"merges": ["a b c"]}, "merge 1: two tokens are expected"),
    ],
)
def test_a_damaged_tokenizer_json_is_named_with_its_place(change, message, folders, tmp_path):
    said = json.loads((folder_of(folders, "qwen2") / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(said | {"model": said["model"] | change}))
    with pytest.raises(UserError, match=message):
        corelm.load_tokenizer(tmp_path)


def test_what_no_part_knows_is_refused_by_name(folders, tmp_path):
    said = json.loads((folder_of(folders, "qwen2") / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(said | {"normalizer": {"type": "Rot13"}}))
    with pytest.raises(UserError, match=r"tokenizer.json: .*'Rot13' is not known"):
        corelm.load_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="model: it has none"):
        corelm.load_tokenizer(tmp_path)


# load_tokenizer


def test_every_format_is_known_by_its_content(tmp_path):
    gpt2_folder(tmp_path / "gpt2")
    bert_file(tmp_path)
    (tmp_path / "sentences").write_bytes(trained("bpe", "llama"))
    (tmp_path / "ranks.model").write_bytes(rank_lines(ranks()))
    gguf(tmp_path / "vocabulary")
    shutil.copy(tmp_path / "vocab.txt", tmp_path / "words.list")
    for name in ("gpt2", "gpt2/merges.txt", "vocab.txt", "words.list", "sentences", "ranks.model", "vocabulary"):
        made = corelm.load_tokenizer(tmp_path / name)
        assert made.decode(made.encode("hello world")) == "hello world"
        (tmp_path / "saved").mkdir()
        corelm_save(made, tmp_path / "saved")
        assert corelm.load_tokenizer(tmp_path / "saved").encode(TEXT[1]) == made.encode(TEXT[1])
        shutil.rmtree(tmp_path / "saved")


def test_what_is_compressed_must_be_unpacked_first(tmp_path):
    (tmp_path / "merges.txt.gz").write_bytes(gzip.compress(b"#version: 0.2\na b\n"))
    with pytest.raises(UserError, match="it is compressed") as error:
        corelm.load_tokenizer(tmp_path / "merges.txt.gz")
    assert error.value.remedy == "Unpack it first."


def corelm_save(tokenizer, folder: Path) -> None:
    from corelm.model.loading import save_tokenizer

    save_tokenizer(tokenizer, folder)


@pytest.mark.parametrize("options", ["plain", "llama", "symbols", "gemma"])
@pytest.mark.parametrize("kind", TYPES)
def test_the_engine_runs_sentencepiece_as_the_library_does(kind, options, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "x.model").write_bytes(trained(kind, options))
    ours = corelm.load_tokenizer(tmp_path / "x.model")
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "x.model"))
    for text in TEXTS:
        assert ours.encode(text) == library.encode(text), text
        assert [piece.id for piece in ours.encode_with_spans(text)] == library.encode(text)
        if library.unk_id() not in library.encode(text):
            assert ours.decode(library.encode(text)) == library.decode(library.encode(text))


def test_a_folder_with_one_file_of_its_own_format(tmp_path):
    (tmp_path / "other").mkdir()
    gguf(tmp_path / "other" / "a.gguf")
    (tmp_path / "model").mkdir()
    shutil.copy(tmp_path / "other" / "a.gguf", tmp_path / "model" / "a.gguf")
    assert corelm.load_tokenizer(tmp_path / "model").encode("a")
    shutil.copy(tmp_path / "other" / "a.gguf", tmp_path / "model" / "b.gguf")
    with pytest.raises(UserError, match=r"several files with a tokenizer: a.gguf, b.gguf"):
        corelm.load_tokenizer(tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"hello\n", b"x y z\n"])
def test_what_is_no_tokenizer_is_said_to_be_none(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(UserError, match="holds no tokenizer that can be read") as error:
            corelm.load_tokenizer(path)
        assert ".tiktoken" in error.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.model", b"\n\x0e\n\x05<unk>", "byte 0: read as a SentencePiece model, field 1 claims 14 bytes"),
        ("x.model", b"hello", "read as a SentencePiece model"),
        ("weights.bin", b"\x80\x02}q\x00.", "byte .*: read as a SentencePiece model"),
        ("x.gguf", b"GGML....", "byte 0: it doesn't begin as a GGUF does"),
        ("x.gguf", b"GG", "only 2 are left"),
        ("x.tiktoken", b"!!!! 0\n", "line 1: .*is no base64"),
        ("x.tiktoken", b"", "it has no ranks"),
    ],
)
def test_where_the_content_is_damaged_the_name_says_what_it_was(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        corelm.load_tokenizer(tmp_path / name)
    assert str(tmp_path / name) in error.value.message


# How the library reads numbers


@given(
    values=st.lists(st.floats(-1e300, 0), min_size=1, max_size=20),
    more=st.lists(st.from_regex(r"\A-[1-9][0-9]{0,24}\.[0-9]{1,24}([eE][+-]?[0-9]{1,2})?\Z"), max_size=8),
)
def test_numbers_are_read_as_the_library_reads_them(values, more):
    texts = [*(json.dumps(value) for value in values), *more]
    vocabulary = ",".join(f'["t{at}",{text}]' for at, text in enumerate(texts))
    library = tokenizers.Tokenizer.from_str(
        '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,'
        f'"post_processor":null,"decoder":null,"model":{{"type":"Unigram","unk_id":0,"vocab":[{vocabulary}]}}}}'
    )
    read = [score for _, score in json.loads(library.to_str())["model"]["vocab"]]
    assert [number(text) for text in texts] == read


# write_tokenizer


@pytest.mark.parametrize("name", ["encoder.json", "vocab.json", "x.tiktoken", "x.gguf", "tokenizer.json"])
def test_a_tokenizer_that_was_trained_here_is_written_for_others(name, tmp_path):
    made = Spec.read("tokenizer", {"use": "bpe", "vocab_size": 300, "pattern": "gpt2"}).build()
    made.train(TEXT)
    written = corelm.write_tokenizer(made, tmp_path / name)
    assert tmp_path / name in written and all(path.is_file() for path in written)
    again = corelm.load_tokenizer(tmp_path / name)
    assert again.end_of_text == made.end_of_text
    for text in MORE:
        assert again.encode(text) == made.encode(text)
    if name in ("encoder.json", "vocab.json"):
        theirs = transformers.GPT2Tokenizer(
            vocab=str(written[written.index(tmp_path / name)]), merges=str(next(p for p in written if p.name != name))
        )
        assert theirs.encode(TEXT[0]) == made.encode(TEXT[0])


def test_pieces_of_sentences_are_written_for_their_library(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "x.model").write_bytes(trained("unigram", "plain"))
    made = corelm.load_tokenizer(tmp_path / "x.model")
    assert corelm.write_tokenizer(made, tmp_path / "y.model") == [tmp_path / "y.model"]
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "y.model"))
    assert [library.encode(text) for text in TEXTS] == [made.encode(text) for text in TEXTS]
    assert corelm.write_tokenizer(made, tmp_path / "y.gguf")
    assert corelm.load_tokenizer(tmp_path / "y.gguf").encode(TEXT[0]) == made.encode(TEXT[0])


def test_pairs_that_were_learnt_here_are_run_by_sentencepiece_and_in_a_gguf(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    made = Spec.read("tokenizer", {"use": "fallback-bpe", "vocab_size": 420}).build()
    made.train(TEXT)
    corelm.write_tokenizer(made, tmp_path / "x.model")
    corelm.write_tokenizer(made, tmp_path / "x.gguf")
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "x.model"))
    for text in MORE:
        wanted = made.encode(text)
        assert library.encode(text) == wanted
        assert corelm.load_tokenizer(tmp_path / "x.model").encode(text) == wanted
        assert corelm.load_tokenizer(tmp_path / "x.gguf").encode(text) == wanted
    assert library.eos_id() == made.end_of_text == corelm.load_tokenizer(tmp_path / "x.gguf").end_of_text


def test_what_a_format_cannot_say_or_nobody_writes_is_refused(tmp_path):
    made = Spec.read("tokenizer", {"use": "bpe", "vocab_size": 300}).build()
    made.train(TEXT)
    with pytest.raises(UserError, match="isn't BERT's"):
        corelm.write_tokenizer(made, tmp_path / "vocab.txt")
    with pytest.raises(UserError, match="no installed part writes tokenizers in a format of that name"):
        corelm.write_tokenizer(made, tmp_path / "x.onnx")
    with pytest.raises(UserError, match="is no folder"):
        corelm.write_tokenizer(made, tmp_path / "missing" / "tokenizer.json")
