"""GPT-2's files: found by either, read as the library does, and refused by line where they are damaged."""

from __future__ import annotations

import json
import re

import pytest
import tokenizers
from corelm_tokenizers import formats
from corelm_tokenizers.formats import tiktoken_ranks
from corelm_tokenizers.formats.checks import STRAY
from corelm_tokenizers.library import spelling
from described import encoder
from small_files import END, TEXTS, gpt2_folder, pairs

from corelm.errors import UserError


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
