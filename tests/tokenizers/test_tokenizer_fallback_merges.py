"""``fallback-bpe`` as a ``tokenizer.json`` of the library: pairs by score said as merges."""

from __future__ import annotations

import json
from functools import cache

import pytest
import tokenizers
from corelm_tokenizers.learnt_pieces import LearnsPieces
from corelm_tokenizers.scored_pairs_tokenizer import ScoredPairsTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from trap_texts import SPECIALS, TRAINING, texts

import corelm
from corelm.errors import UserError
from corelm.kinds import Spec

WORDS = st.text("aab ", min_size=2, max_size=6).map(lambda piece: piece.replace(" ", "▁"))


def library_of(tokenizer: LearnsPieces) -> tokenizers.Tokenizer:
    told = tokenizer.as_tokenizers_json()
    assert told is not None
    made = tokenizers.Tokenizer.from_str(told)
    made.encode_special_tokens = True
    return made


@cache
def learnt(name: str) -> LearnsPieces:
    made = Spec.read("tokenizer", {"use": name, "vocab_size": 480}).build()
    made.train(TRAINING, SPECIALS)
    return made


def of_pieces(pieces: list[tuple[str, float]]) -> ScoredPairsTokenizer:
    made = ScoredPairsTokenizer(ScoredPairsTokenizer.Config(vocab_size=300))
    made._set(pieces, ())
    return made


@pytest.mark.parametrize("name", ["fallback-bpe", "sentencepiece-bpe"])
@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_the_library_has_the_same_ids_and_text(name: str, text: str) -> None:
    ours, library = learnt(name), library_of(learnt(name))
    ids = library.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == ids
    assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(WORDS, min_size=1, max_size=14, unique=True).flatmap(st.permutations),
    lines=st.lists(st.text("aaab ", max_size=24), min_size=1, max_size=6),
)
def test_any_pieces_in_any_order_are_said_by_merges(pieces: list[str], lines: list[str]) -> None:
    """Also such as no training gives: parts that are worse than what they make, pieces that nothing makes."""
    ours = of_pieces([(piece, -float(rank)) for rank, piece in enumerate([*pieces, "a", "b", "▁"])])
    library = library_of(ours)
    for line in lines:
        assert ours.encode(line) == library.encode(line, add_special_tokens=False).ids, line


@pytest.mark.parametrize("name", ["fallback-bpe", "sentencepiece-bpe"])
def test_it_is_read_back_and_no_other_is(name: str) -> None:
    made = learnt(name)
    text = made.as_tokenizers_json()
    assert text is not None
    again = type(made).from_tokenizers_json(text)
    assert again is not None
    assert (again.learnt, again.specials, again.vocab_size) == (made.learnt, made.specials, made.vocab_size)
    altered = json.loads(text)
    altered["model"]["merges"].pop()
    for other in (json.dumps(altered), "{}", "[]", '"BPE"'):
        assert type(made).from_tokenizers_json(other) is None


def test_the_file_that_is_written_is_the_librarys(tmp_path) -> None:
    made = learnt("fallback-bpe")
    corelm.write_tokenizer(made, tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.encode(TRAINING[0], add_special_tokens=False).ids == made.encode(TRAINING[0], allow_special=True)
    read = corelm.load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(read, ScoredPairsTokenizer)
    assert read.encode(TRAINING[0]) == made.encode(TRAINING[0])


def test_pieces_of_one_score_are_refused(tmp_path) -> None:
    ours = of_pieces([("ab", -1.0), ("ba", -1.0), ("a", -2.0), ("b", -3.0)])
    assert ours.encode("bab")[-1] == ours.encode("b")[0]  # the leftmost is joined, whichever it is
    assert ours.as_tokenizers_json() is None
    with pytest.raises(UserError, match="no description in the words of tokenizer.json"):
        corelm.write_tokenizer(ours, tmp_path / "tokenizer.json")
