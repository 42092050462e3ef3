"""How words are cut: as the published tokenizers of the same name do, in both engines, whatever version of Unicode."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import grammar
import pytest
import tokenizers
from corelm_tokenizers.patterns import PatternName, spelt_out, splitter
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from trap_texts import TRAINING

from corelm.kinds import Spec

NAMES = [name for name in get_args(PatternName) if name != "none"]
ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLISHED = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": rf"{ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{REST}",
    "qwen2": rf"{ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{REST}",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENGLISH}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENGLISH}?"
    rf"|\p{{N}}{{1,3}}{REST}".replace(r"[\r\n]*|", r"[\r\n/]*|", 1),
}
TIKTOKEN = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": PUBLISHED["o200k"],
}
TEXTS = st.lists(st.sampled_from([*grammar.SIGNS, "/", "\n", " ", "ʰ"]), max_size=14).map("".join) | st.text(
    max_size=8
)


@cache
def cut_by_library(pattern: str) -> Any:
    return pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")


def words(cut: Any, text: str) -> list[str]:
    return [word for word, _ in cut.pre_tokenize_str(text)] if text else []


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXTS)
def test_both_engines_cut_alike_and_lose_nothing(name: Any, text: str) -> None:
    ours = splitter(name).findall(text)
    assert "".join(ours) == text
    assert ours == words(cut_by_library(spelt_out(name)), text)


@pytest.mark.parametrize("name", PUBLISHED)
@given(text=TEXTS)
def test_words_are_those_of_the_published_pattern(name: Any, text: str) -> None:
    assert splitter(name).findall(text) == words(cut_by_library(PUBLISHED[name]), text)


@cache
def pairs_of_bytes(name: str) -> Any:
    """An encoding of tiktoken in which ids show where words end: every two bytes of a word are one."""
    tiktoken = pytest.importorskip("tiktoken")
    singles = [bytes([value]) for value in range(256)]
    ranks = {piece: rank for rank, piece in enumerate([*singles, *(a + b for a in singles for b in singles)])}
    return tiktoken.Encoding(name, pat_str=TIKTOKEN[name], mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("name", TIKTOKEN)
@given(text=TEXTS)
def test_words_are_tiktoken_s(name: Any, text: str) -> None:
    encoding = pairs_of_bytes(name)
    alone = [token for word in splitter(name).findall(text) for token in encoding.encode_ordinary(word)]
    assert alone == encoding.encode_ordinary(text)


@pytest.mark.parametrize("name", ["llama3", "qwen2", "o200k"])
def test_siblings_learn_and_encode_alike(name: str) -> None:
    made = [
        Spec.read("tokenizer", {"use": use, "vocab_size": 300, "pattern": name}).build() for use in ("bpe", "hf-bpe")
    ]
    for one in made:
        one.train(TRAINING)
    ours, theirs = made
    assert ours.merges == theirs.merges
    for text in TRAINING:
        assert ours.encode(text) == theirs.encode(text)
    read = type(ours).from_tokenizers_json(theirs.as_tokenizers_json())
    assert read is not None
    assert read.config.pattern == name
    assert ours.encode_bytes(b"a\xff\n\xfe b\xe6\x97c") == theirs.encode_bytes(b"a\xff\n\xfe b\xe6\x97c")
