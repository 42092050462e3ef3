"""Tiktoken's ranks, alone and in Mistral's ``tekken.json``: tiktoken's ids, and published files known by size."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import tokenizers
from corelm_tokenizers import formats
from corelm_tokenizers.formats import tiktoken_ranks, words
from corelm_tokenizers.formats.found import Found
from described import encoder
from hypothesis import given
from hypothesis import strategies as st
from published import LLAMA3
from small_files import END, TEXTS, gpt2_folder, rank_lines, ranks

from corelm.errors import UserError


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
