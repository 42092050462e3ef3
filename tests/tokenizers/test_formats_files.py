"""GPT-2's files, ``vocab.txt``, tiktoken's ranks, GGUF: read as their own libraries do, written so that they read back."""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers import formats
from corelm_tokenizers.formats import gguf_metadata, gguf_vocabulary, sentencepiece_model, tiktoken_ranks, words
from corelm_tokenizers.formats.checks import STRAY
from corelm_tokenizers.formats.found import Found
from corelm_tokenizers.library import spelling
from described import encoder
from hypothesis import given
from hypothesis import strategies as st
from published import LLAMA3, TEXT, byte_pairs, split_bytes, word_pieces
from test_formats_sentencepiece import trained
from tokenizers import pre_tokenizers

from corelm.errors import UserError

TEXTS = [
    *TEXT[:4],
    "",
    " ",
    "a \n ",
    "x\n\n \n",
    "I'M don't 1234567 ſ'ſ",
    "<|endoftext|> [MASK] </s>",
    "\x00\x7f\u3000\u200b",
    "e\u0301 🙂",
]
END = "<|endoftext|>"


@cache
def pairs(pattern: str | None = None) -> dict:
    """A byte-level tokenizer that was trained by the library, as its JSON."""
    cut = split_bytes(pattern) if pattern else pre_tokenizers.ByteLevel(add_prefix_space=False)
    return json.loads(byte_pairs(cut).to_str())


def gpt2_folder(folder: Path, names=("vocab.json", "merges.txt"), **changes) -> Path:
    """GPT-2's files, as small ones, altered."""
    model = pairs()["model"]
    vocabulary = changes.get("vocab", model["vocab"] | {END: len(model["vocab"])})
    merges = changes.get("merges", [" ".join(pair) for pair in model["merges"]])
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / names[1]).write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_files_are_found_by_either_and_by_their_folder(names, tmp_path):
    folder = gpt2_folder(tmp_path, names)
    found = [formats.read(path) for path in (folder, folder / names[0], folder / names[1])]
    assert found[0] == found[1] == found[2]
    assert found[0].end_of_text == END
    library = tokenizers.Tokenizer.from_str(json.dumps(pairs()))
    for text in TEXTS:
        assert encoder(found[0])(text) == library.encode(text).ids


def test_gpt2s_files_with_other_names_and_line_ends(tmp_path):
    folder = gpt2_folder(tmp_path, ("tiny_vocab.json", "tiny_merges.txt"))
    merges = (folder / "tiny_merges.txt").read_bytes()
    plain = formats.read(folder / "tiny_vocab.json")
    (folder / "tiny_merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    assert formats.read(folder / "tiny_merges.txt") == plain


@pytest.mark.parametrize("name", ["vocab.json", "encoder.json", "x.tiktoken", "x.gguf", "tokenizer.json"])
def test_gpt2_comes_back_from_every_format_that_can_say_it(name, tmp_path):
    found = formats.read(gpt2_folder(tmp_path / "old"))
    (tmp_path / "new").mkdir()
    written = formats.write(found, tmp_path / "new" / name)
    again = formats.read(tmp_path / "new" / name)
    assert again.description["model"]["merges"] == found.description["model"]["merges"]
    assert encoder(again)("Hello <|endoftext|>") == encoder(found)("Hello <|endoftext|>")
    for text in TEXTS:
        assert encoder(again)(text) == encoder(found)(text)
    if name not in (
        "x.tiktoken",
        "tokenizer.json",
    ):  # ranks look whole words up first; a JSON has no place for the end
        assert again == found
    assert all(path.is_file() for path in written)


def without(piece: str) -> dict[str, int]:
    return {key: number for key, number in pairs()["model"]["vocab"].items() if key != piece}


def test_a_missing_token_is_a_hole(tmp_path):
    merged = "".join(pairs()["model"]["merges"][5])
    with pytest.raises(UserError, match=r"vocab.json, id \d+: no token has it") as error:
        formats.read(gpt2_folder(tmp_path, vocab=without(merged)))
    assert "added_tokens.json" in error.value.remedy


def test_a_merge_with_a_gap_is_named_with_its_line(tmp_path):
    merges = [" ".join(pair) for pair in pairs()["model"]["merges"]]
    merges.insert(3, "Q ZZ")
    with pytest.raises(UserError, match=r"merges.txt, merge 5 .'Q ZZ'.: 'ZZ', which it joins, has no id"):
        formats.read(gpt2_folder(tmp_path, merges=merges))
    merges[3] = "Q Z"
    with pytest.raises(UserError, match="'QZ', which it makes, has no id"):
        formats.read(gpt2_folder(tmp_path, merges=merges))


def test_merges_that_others_need_or_that_the_vocabulary_is_made_of_are_missed(tmp_path):
    merges = [" ".join(pair) for pair in pairs()["model"]["merges"]]
    made = {merge.replace(" ", ""): number for number, merge in enumerate(merges)}
    later, needed = next((n, made[p]) for n, merge in enumerate(merges) for p in merge.split(" ") if p in made)
    gone = merges[needed].replace(" ", "")
    message = rf"merges.txt, merge {later + 1} .*: '{re.escape(gone)}', which it joins, is made by no merge"
    with pytest.raises(UserError, match=message):
        formats.read(gpt2_folder(tmp_path, merges=merges[:needed] + merges[needed + 1 :]))
    short = len(merges) - STRAY
    assert formats.read(gpt2_folder(tmp_path, merges=merges[:short])).description["model"]["merges"]
    with pytest.raises(UserError, match=rf"merges.txt, after line {short}: it ends, but no merge makes {STRAY + 1} "):
        formats.read(gpt2_folder(tmp_path, merges=merges[: short - 1]))


BAD_GPT2 = {
    "two tokens claim one id": ({"vocab": {"a": 0, "b": 0}}, "id 0: two tokens claim it: 'a' and 'b'"),
    "an id that is none": ({"vocab": {"a": "0"}}, "token 'a': its id is '0'"),
    "an id below zero": ({"vocab": {"a": -1}}, "token 'a': its id is -1"),
    "a line that is no merge": ({"merges": ["a"]}, "line 2: two tokens with a space between"),
    "a merge twice": (
        {"vocab": {"e": 0, "r": 1, "er": 2}, "merges": ["e r"] * 2},
        "merge 3: 'e r' is merge 2 already",
    ),
    "words' ends": ({"vocab": {"a</w>": 0, "b</w>": 1}, "merges": []}, "characters with </w> at words' ends"),
}


@pytest.mark.parametrize("name", BAD_GPT2)
def test_damaged_files_of_gpt2_are_named_with_their_place(name, tmp_path):
    changes, message = BAD_GPT2[name]
    with pytest.raises(UserError, match=message) as error:
        formats.read(gpt2_folder(tmp_path, **changes))
    assert str(tmp_path) in error.value.message and error.value.remedy


def test_json_that_is_broken_or_says_a_token_twice(tmp_path):
    folder = gpt2_folder(tmp_path)
    (folder / "vocab.json").write_text('{"a": 0, "b": 1, "a": 2}')
    with pytest.raises(UserError, match="key 'a': it is there twice"):
        formats.read(folder)
    (folder / "vocab.json").write_text('{"a": 0,\n "b": ')
    with pytest.raises(UserError, match="line 2, column 7: it is no JSON"):
        formats.read(folder)
    (folder / "vocab.json").write_bytes(b'{"\xff": 0}')
    with pytest.raises(UserError, match="byte 2: it is no UTF-8"):
        formats.read(folder)


def test_half_of_a_pair_says_what_is_missing(tmp_path):
    folder = gpt2_folder(tmp_path)
    (folder / "merges.txt").rename(tmp_path / "lost")
    with pytest.raises(UserError, match="no file of merges stands beside it"):
        formats.read(folder / "vocab.json")
    with pytest.raises(UserError, match="no file with the ids of tokens stands beside it"):
        formats.read(tmp_path / "lost")


def test_a_class_that_cuts_otherwise_is_refused_by_name(tmp_path):
    folder = gpt2_folder(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    with pytest.raises(UserError, match="CLIPTokenizer, whose way of cutting"):
        formats.read(folder)


# vocab.txt


def bert_file(folder: Path, lower: bool = True) -> Path:
    library = word_pieces(lower)
    ids = library.get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(ids, key=ids.get)), encoding="utf-8")
    return folder / "vocab.txt"


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocab_txt_says_by_its_letters_whether_case_matters(lower, tmp_path):
    path = bert_file(tmp_path, lower)
    found, library = formats.read(path), word_pieces(lower)
    assert found.description["normalizer"]["lowercase"] is lower
    assert found.end_of_text == "[SEP]"
    library.encode_special_tokens = True
    for text in TEXTS:
        assert encoder(found)(text) == library.encode(text, add_special_tokens=False).ids


def test_a_config_beside_it_is_believed(tmp_path):
    path = bert_file(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenize_chinese_chars": false}')
    normalizer = formats.read(path).description["normalizer"]
    assert (normalizer["lowercase"], normalizer["handle_chinese_chars"]) == (False, False)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(UserError, match="BertJapaneseTokenizer, whose rules"):
        formats.read(tmp_path)


@pytest.mark.parametrize("name", ["vocab.txt", "x.gguf"])
@pytest.mark.parametrize("lower", [True, False])
def test_word_pieces_come_back(name, lower, tmp_path):
    (tmp_path / "new").mkdir()
    found = formats.read(bert_file(tmp_path, lower))
    formats.write(found, tmp_path / "new" / name)
    assert formats.read(tmp_path / "new" / name) == found


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[UNK]", "a", "", "b"], "line 3: it is empty"),
        (["[UNK]", "a", "b", "a"], "line 4: 'a' stands in line 2 already"),
        (["a", "b"], "none is .UNK."),
    ],
)
def test_damaged_lists_of_words(lines, message, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=message):
        formats.read(tmp_path / "vocab.txt")


# tiktoken


@cache
def ranks(pattern: str = LLAMA3) -> dict[bytes, int]:
    values = {character: value for value, character in enumerate(spelling())}
    vocabulary = pairs(pattern)["model"]["vocab"]
    return {bytes(values[sign] for sign in piece): number for piece, number in vocabulary.items()}


def rank_lines(table: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in table.items())


def told(path: Path, pattern: str, specials: dict[str, int] | None = None) -> Path:
    content = {"pat_str": pattern, "special_tokens": {END: len(ranks())} if specials is None else specials}
    path.with_name(f"{path.name}.json").write_text(json.dumps(content))
    return path


NAMED = {
    "gpt2": words.GPT2,
    "cl100k": words.CL100K,
    "o200k": words.O200K,
    "llama3": words.LLAMA3,
    "qwen": words.QWEN2,
    "tekken": words.TEKKEN,
}


@pytest.mark.parametrize("name", NAMED)
def test_ranks_give_tiktokens_ids(name, tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    (tmp_path / "x.tiktoken").write_bytes(rank_lines(ranks()))
    found = formats.read(told(tmp_path / "x.tiktoken", NAMED[name]))
    theirs = {  # as tiktoken writes them; the others are its own already
        "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
        r"|\s*[\r\n]|\s+(?!\S)|\s",
    }
    library = tiktoken.Encoding(
        "x", pat_str=theirs.get(name, NAMED[name]), mergeable_ranks=ranks(), special_tokens={END: len(ranks())}
    )
    assert found.end_of_text == END
    encode = encoder(found)
    for text in TEXTS:
        assert encode(text) == library.encode_ordinary(text), text


ALPHABET = [bytes([value]) for value in range(256)]


@given(data=st.data())
def test_any_ranks_give_tiktokens_ids(data):
    tiktoken = pytest.importorskip("tiktoken")
    letters = st.binary(min_size=2, max_size=5).map(lambda raw: bytes(b"ab c"[value % 4] for value in raw))
    tokens = data.draw(st.lists(letters, unique=True, max_size=14))
    table = {token: rank for rank, token in enumerate([*ALPHABET, *tokens])}
    made = [
        (tiktoken_ranks.spelt(left), tiktoken_ranks.spelt(right)) for left, right in tiktoken_ranks.merges_of(table)
    ]
    pieces = {tiktoken_ranks.spelt(token): rank for token, rank in table.items()}
    found = Found(formats.gpt2.byte_pairs(pieces, made, words.byte_words([words.GPT2]), ignore_merges=True))
    library = tiktoken.Encoding("x", pat_str=words.GPT2, mergeable_ranks=table, special_tokens={})
    text = data.draw(st.text("ab c", max_size=24))
    assert encoder(found)(text) == library.encode_ordinary(text)


def test_published_files_are_known_by_their_size(tmp_path):
    specials = {size: dict(known.specials) for size, (_, known) in tiktoken_ranks.KNOWN.items()}
    assert specials[128000]["<|eot_id|>"] == 128009
    assert specials[128000]["<|reserved_special_token_247|>"] == 128255
    assert specials[100256] == {
        "<|endoftext|>": 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    }
    assert specials[151643]["<|im_end|>"] == 151645 and specials[50280] == {END: 50256}


def test_ids_between_special_tokens_stay_reserved_and_one_inside_is_taken(tmp_path):
    table = dict(ranks())
    last = max(table, key=table.get)
    table[last] += 1
    path = tmp_path / "x.tiktoken"
    path.write_bytes(rank_lines(table))
    size = len(table)
    found = formats.read(told(path, LLAMA3, {END: size - 1, "<|late|>": size + 3}))
    added = {token["content"]: token["id"] for token in found.description["added_tokens"]}
    assert added == {
        END: size - 1,
        f"<|reserved_{size + 1}|>": size + 1,
        f"<|reserved_{size + 2}|>": size + 2,
        "<|late|>": size + 3,
    }
    library = tokenizers.Tokenizer.from_str(json.dumps(found.description))
    assert all(library.token_to_id(content) == number for content, number in added.items())
    with pytest.raises(UserError, match=rf"id {size - 1}: no token has it"):
        formats.read(told(path, LLAMA3, {}))


@pytest.mark.parametrize(
    ("size", "specials", "pattern"), [(128000, 256, words.LLAMA3), (200000, 2048, words.O200K)], ids=["3", "4"]
)
def test_metas_rank_files_are_known_by_their_size(size, specials, pattern, tmp_path):
    known = tiktoken_ranks.KNOWN[size][1]
    assert (known.pattern, known.end, known.before) == (pattern, "<|end_of_text|>", ("<|begin_of_text|>",))
    assert list(known.specials.values()) == list(range(size, size + specials))


def test_a_small_dot_model_with_ranks_is_read_as_llama_3s(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(rank_lines(ranks()))
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        found = formats.read(path)
        assert found.end_of_text == "<|end_of_text|>"
        assert len(found.description["added_tokens"]) == 256
        assert found.description["pre_tokenizer"] == words.byte_words([words.LLAMA3])


def test_a_large_dot_model_of_unknown_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tiktoken_ranks, "_LLAMA3", 100)
    (tmp_path / "tokenizer.model").write_bytes(rank_lines(ranks()))
    with pytest.raises(UserError, match="doesn't say how text is cut"):
        formats.read(tmp_path / "tokenizer.model")


def test_special_tokens_of_llama_4_are_where_meta_has_them():
    specials = tiktoken_ranks.KNOWN[200000][1].specials
    places = {"header_start": 200005, "eot": 200008, "python_start": 200016, "image_start": 200080, "patch": 200092}
    places |= {"vision_reserved_special_token_1047": 201133, "reasoning_thinking_end": 201143}
    places |= {"text_post_train_reserved_special_token_68": 200079, "reserved_special_token_903": 202047}
    assert {name: specials[f"<|{name}|>"] for name in places} == places


def test_a_rank_that_no_text_spells_stays_reserved(tmp_path):
    table = dict(ranks())
    size = len(table)
    path = told(tmp_path / "x.tiktoken", LLAMA3, {END: size + 1})
    path.write_bytes(rank_lines(table) + b"= %d\n" % size)
    found = formats.read(path)
    assert {t["content"]: t["id"] for t in found.description["added_tokens"]} == {
        END: size + 1,
        f"<|reserved_{size}|>": size,
    }


def test_a_rank_file_of_unknown_size_must_be_told_its_pattern(tmp_path):
    (tmp_path / "x.tiktoken").write_bytes(rank_lines(ranks()))
    with pytest.raises(UserError, match="doesn't say how text is cut") as error:
        formats.read(tmp_path / "x.tiktoken")
    assert "x.tiktoken.json" in error.value.remedy
    (tmp_path / "x.tiktoken.json").write_text('{"pattern": "x"}')
    with pytest.raises(UserError, match="'pattern' is not known"):
        formats.read(tmp_path / "x.tiktoken")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"Zm9v", "base64, a space and a rank are expected"),
        (b"Zm9 900", "is no base64"),
        (b"Z!9v 900", "is no base64"),
        (b"AA== 900", r"the token b'.x00' has rank 188 already"),
        (b"Zm9vYmFyZm9v 7", "rank 7 is that of line 8 already"),
        (b"Zm9vYmFyZm9v x", "base64, a space and a rank are expected"),
    ],
)
def test_damaged_ranks_are_named_with_their_line(line, message, tmp_path):
    path = tmp_path / "x.tiktoken"
    path.write_bytes(rank_lines(dict(sorted(ranks().items(), key=lambda one: one[1]))) + line + b"\n")
    with pytest.raises(UserError, match=rf"line {len(ranks()) + 1}: .*{message}"):
        formats.read(told(path, LLAMA3))


def test_ranks_without_some_byte_are_refused(tmp_path):
    path = tmp_path / "x.tiktoken"
    path.write_bytes(rank_lines({token: rank for token, rank in ranks().items() if token != b"\xfe"}))
    with pytest.raises(UserError, match="byte 0xfe: it has no rank"):
        formats.read(told(path, LLAMA3))


def test_ranks_are_written_only_for_what_they_can_say(tmp_path):
    found = formats.read(gpt2_folder(tmp_path))
    model = found.description["model"]
    turned = found.description | {"model": model | {"merges": model["merges"][::-1]}}
    nfc = found.description | {"normalizer": {"type": "NFC"}}
    for said in (turned, nfc):
        with pytest.raises(UserError, match="says something else"):
            formats.write(Found(said), tmp_path / "x.tiktoken")
    with pytest.raises(UserError, match="says something else"):
        formats.write(Found(nfc), tmp_path / "vocab.json")
    with pytest.raises(UserError, match="can't be said in a SentencePiece model"):
        formats.write(found, tmp_path / "x.model")
    with pytest.raises(UserError, match="isn't BERT's"):
        formats.write(found, tmp_path / "vocab.txt")
    with pytest.raises(UserError, match="of no format that can be written"):
        formats.write(found, tmp_path / "x.bin")


# tekken.json


def tekken(path: Path, **changes: object) -> Path:
    """A file as Mistral publishes them: more ranks than the vocabulary takes, special tokens before all."""
    table = sorted(ranks().items(), key=lambda one: one[1])
    order = [*((bytes([value]), value) for value in range(256)), *(one for one in table if len(one[0]) > 1)]
    listed = [
        {"rank": at, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for at, (token, _) in enumerate(order)
    ]
    config = {"pattern": words.TEKKEN, "default_vocab_size": len(order) - 10 + 30, "default_num_special_tokens": 30}
    content = {"config": config | {"num_vocab_tokens": len(order), "version": "v3"}, "vocab": listed}
    path.write_text(json.dumps(content | changes))
    return path


def test_tekken_numbers_special_tokens_first(tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    found = formats.read(tekken(tmp_path / "tekken.json"))
    content = json.loads((tmp_path / "tekken.json").read_text())
    table = {base64.b64decode(token["token_bytes"]): token["rank"] for token in content["vocab"][:-10]}
    library = tiktoken.Encoding("x", pat_str=words.TEKKEN, mergeable_ranks=table, special_tokens={})
    added = {token["content"]: token["id"] for token in found.description["added_tokens"]}
    assert (added["<s>"], added["[INST]"], added["<SPECIAL_29>"], found.end_of_text) == (1, 3, 29, "</s>")
    encode = encoder(found)
    for text in TEXTS:
        assert encode(text) == [number + 30 for number in library.encode_ordinary(text)]
    listed = [{"rank": 0, "token_str": "<s>"}, {"rank": 1, "token_str": "</s>"}]
    named = formats.read(tekken(tmp_path / "tekken.json", special_tokens=listed))
    assert [token["content"] for token in named.description["added_tokens"]][:3] == ["<s>", "</s>", "<SPECIAL_2>"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {}}, "config.pattern: str is expected"),
        ({"vocab": [{"rank": 1, "token_bytes": "AA=="}]}, "vocab 0: its rank is 1"),
        ({"vocab": [{"rank": 0, "token_bytes": "A"}]}, "vocab 0: rank and token_bytes in base64"),
        ({"vocab": [{"rank": 0, "token_bytes": "AA=="}]}, "vocab: it has 1 tokens, the config says"),
        ({"special_tokens": [{"rank": 0}]}, "special_tokens: a list of tokens"),
        ({"special_tokens": [{"rank": 1, "token_str": "<s>"}]}, "id 0: no token has it"),
    ],
)
def test_damaged_tekken_files_are_named_with_their_place(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        formats.read(tekken(tmp_path / "tekken.json", **changes))


# GGUF


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


def gguf(path: Path, **values: object) -> Path:
    said = formats.read(gpt2_folder(path.parent))
    model = said.description["model"]
    base = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": list(model["vocab"]),
        "merges": [" ".join(pair) for pair in model["merges"]],
    }
    kept = {f"tokenizer.ggml.{key}": value for key, value in (base | values).items() if value is not None}
    gguf_metadata.write(path, kept)
    return path


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


# Real files


@pytest.mark.data
def test_gpt2_itself(data):
    tiktoken = pytest.importorskip("tiktoken")
    found = formats.read(data / "gpt2-bpe")
    values = {character: value for value, character in enumerate(spelling())}
    vocabulary = found.description["model"]["vocab"]
    table = {bytes(values[c] for c in piece): number for piece, number in vocabulary.items() if piece != END}
    assert tiktoken_ranks.merges_of(table) == [
        tuple(bytes(values[c] for c in piece) for piece in pair) for pair in found.description["model"]["merges"]
    ]
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    library = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=table, special_tokens={END: 50256})
    encode = encoder(found)
    for text in (data / "unicode-stress" / "blns.txt").read_text(encoding="utf-8").split("\n"):
        assert encode(text) == library.encode_ordinary(text)


@pytest.mark.data
@pytest.mark.parametrize("name", ["tiny_bpe_vocab.json", "tiny_bpe_merges.txt", "tiktoken_small.model"])
def test_small_files_from_elsewhere(name, data):
    found = formats.read(data / "tiny-tokenizers" / name)
    assert len(found.description["model"]["vocab"]) == 2000
    text = "Hello world, tokenizers!"
    if name.startswith("tiktoken"):
        library = tokenizers.Tokenizer.from_file(str(data / "tiny-tokenizers" / "hf_tokenizer.json"))
        assert encoder(found)(text) == library.encode(text).ids


@pytest.mark.data
def test_bert_itself(data):
    found = formats.read(data / "bert-wordpiece" / "vocab.txt")
    assert found.description["normalizer"]["lowercase"] is True
    assert len(found.description["model"]["vocab"]) == 30522


def test_all_kinds_of_pieces_have_the_numbers_of_the_library():
    constants = pytest.importorskip("gguf").TokenType
    assert {name.upper(): number for number, name in sentencepiece_model.KINDS.items()} == {
        kind.name: int(kind) for kind in constants
    }
    assert gguf_vocabulary.PREFIX == "tokenizer."


@pytest.mark.parametrize("pattern", ["gpt2", LLAMA3])
def test_a_published_file_is_read_once_and_not_by_every_part(pattern, tmp_path, monkeypatch):
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False) if pattern == "gpt2" else split_bytes(pattern)
    byte_pairs(cut, ignore_merges=True).save(str(tmp_path / "tokenizer.json"))
    text, read, loads = (tmp_path / "tokenizer.json").read_text(encoding="utf-8"), [], json.loads
    monkeypatch.setattr(json, "loads", lambda said, **more: (read.append(said), loads(said, **more))[1])
    made = formats.load(tmp_path / "tokenizer.json")
    assert read.count(text) == 1 == len(read)
    assert made.as_tokenizers_json() == text
