"""``corelm tokenizer report``: figures that can be counted by hand, and what a user gets wrong."""

from __future__ import annotations

import json
import math

import pytest

from corelm.cli import main
from corelm.cli.tokenizer import read_texts
from corelm.cli.tokenizer_figures import measure
from corelm.kinds import Spec
from corelm.model.loading import save_tokenizer


@pytest.fixture(scope="module")
def octets():
    made = Spec.read("tokenizer", "bytes").build()
    made.train([])
    return made


@pytest.fixture(scope="module")
def pairs():
    made = Spec.read("tokenizer", {"use": "bpe", "vocab_size": 259}).build()
    made.train(["abab abab"])
    return made


def call(capsys, *arguments):
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_bytes_are_counted_by_hand(octets):
    text = measure("bytes", octets, {"t": "ab é1"}).texts["t"]
    assert (text.bytes, text.characters, text.tokens) == (6, 5, 6)
    assert text.bytes_per_token == 1
    assert (text.words, text.word_tokens) == (2, 3 + 3), "a number is no word; a word brings its space"
    assert (text.fertility, text.split) == (3, 1)
    assert not text.unlike
    assert not text.wrong


def test_use_of_the_vocabulary_and_its_evenness(octets):
    figures = measure("bytes", octets, {"t": "abab", "u": "cc"})
    assert figures.used == 3 / 257
    assert figures.efficiency == pytest.approx(math.log(3) / math.log(257)), "three ids, each two times"
    assert figures.partial == 128


def test_a_learnt_word_is_one_token_and_the_longest(pairs):
    figures = measure("bpe", pairs, {"t": "abab abab"})
    assert figures.longest[0] == "abab"
    assert figures.bytes_per_token == 9 / 3
    assert figures.fertility == 2, "a space and the word"


def test_tokens_that_nothing_writes_are_found(pairs):
    class Deaf(type(pairs)):
        def encode(self, text, *, allow_special=False):
            return list(text.encode())

    deaf = Deaf(pairs.config)
    deaf._set(pairs.merges, list(pairs.specials))
    assert measure("deaf", deaf, {"t": "abab"}).unreachable == ["ab", "abab"]


def test_a_tokenizer_that_loses_something_is_told(octets):
    class Lossy(type(octets)):
        def encode(self, text, *, allow_special=False):
            return super().encode(text.strip())

    lossy = Lossy(octets.config)
    lossy._set((), ["<|endoftext|>"])
    assert measure("lossy", lossy, {"t": " a"}).texts["t"].wrong


def test_table_page_and_json(tmp_path, capsys, pairs):
    (tmp_path / "mine").mkdir()
    save_tokenizer(pairs, tmp_path / "mine")
    (tmp_path / "a.txt").write_text("abab <b>", encoding="utf-8")
    (tmp_path / "langs").mkdir()
    for name in ("de", "fr"):
        (tmp_path / "langs" / f"{name}.txt").write_text(f"{name} abab", encoding="utf-8")
    (tmp_path / "langs" / "x.bin").write_bytes(b"\xff\xfe")
    given = ["tokenizer", "report", tmp_path / "mine", "plain=bytes", "--text", tmp_path / "a.txt"]
    given += ["--text", tmp_path / "langs"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        # a name for a part needs no file of that name
        code, out, err = call(capsys, *given, "--html", tmp_path / "r.html")
        assert code == 0, err
        assert "1 files that are no UTF-8 are left out" in err
        assert all(word in out for word in ("mine", "plain", "bytes per token", "de", "fr", "a  "))
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert page.count("<svg") == 2
        assert "<b>" not in page
        code, out, _ = call(capsys, *given, "--json")
    assert [one["name"] for one in json.loads(out)] == ["mine", "plain"]
    assert json.loads(out)[1]["texts"]["a"]["bytes_per_token"] == 1


@pytest.mark.parametrize(
    ("arguments", "piece"),
    [
        (["nowhere", "--text", "a.txt"], "no tokenizer at nowhere"),
        (["bpe", "--text", "a.txt"], "has to be trained first"),
        (["bytes", "--text", "none.txt"], "none.txt: No such file"),
        (["bytes", "--text", "bad.txt"], "no UTF-8 at byte 1"),
        (["bytes", "--text", "empty.txt"], "no text in empty.txt"),
        (["bytes", "x=bytes", "x=bytes", "--text", "a.txt"], "x is named twice"),
        (["bytes", "--text", "a.txt", "--text", "sub/a.txt"], "two texts are called a"),
        (["bytes"], "--text"),
    ],
)
def test_mistakes(capsys, tmp_path, monkeypatch, arguments, piece):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(b"a\xff")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a", encoding="utf-8")
    code, out, err = call(capsys, "tokenizer", "report", *arguments)
    assert code == 2
    assert piece in err
    assert "Traceback" not in out + err


def test_a_folder_with_a_name_is_one_text(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    assert read_texts([f"all={tmp_path}"]) == {"all": "ab"}
