"""Training of unigram, WordPiece and scored pairs: against the definition, and against the libraries."""

import io
import itertools
import json
import math
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import regex
import tokenizers
import torch
from corelm_tokenizers.lattices import Lattices
from corelm_tokenizers.scored_pairs_training import learn_scored_pairs
from corelm_tokenizers.unigram import Unigram
from corelm_tokenizers.unigram_training import _digamma, _seeds, learn_unigram
from corelm_tokenizers.wordpiece_training import alphabet_of, learn_word_pieces
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")

counted = st.dictionaries(st.text("aabc", min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=8)
PIECES = ["a", "b", "c", "ab", "bc", "aa", "aba", "cab"]
SCORES = np.array([-2.0, -2.5, -3.0, -2.25, -3.5, -2.75, -4.0, -5.0])


def ways(word):
    """Every way to write a word in the pieces, with its probability."""
    for inner in itertools.product((False, True), repeat=len(word) - 1):
        cuts = [0, *(place + 1 for place, cut in enumerate(inner) if cut), len(word)]
        parts = [word[a:b] for a, b in itertools.pairwise(cuts)]
        if all(part in PIECES for part in parts):
            yield parts, math.exp(sum(SCORES[PIECES.index(part)] for part in parts))


@settings(max_examples=60, deadline=None)
@given(words=counted)
def test_pieces_are_expected_as_often_as_all_ways_say(words):
    words = dict(sorted(words.items()))
    lattices = Lattices.of(list(words), PIECES)
    found = lattices.expected(SCORES, np.array(list(words.values()), dtype=float))
    expected = np.zeros(len(PIECES))
    for word, count in words.items():
        total = sum(probability for _, probability in ways(word))
        for parts, probability in ways(word):
            for part in parts:
                expected[PIECES.index(part)] += count * probability / total
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(words=counted)
def test_the_best_ways_of_many_words_are_those_of_each(words):
    lattices = Lattices.of(list(words), PIECES)
    best, ending = lattices.best(SCORES)
    one = Unigram(PIECES, SCORES.tolist())
    found = [[] for _ in words]
    for numbers, pieces in lattices.walk(ending):
        for number, piece in zip(numbers.tolist(), pieces.tolist(), strict=True):
            found[number].insert(0, piece)
    assert [tuple(way) for way in found] == [one.ids(word) for word in words]
    np.testing.assert_allclose(best, [SCORES[list(way)].sum() for way in found])


def test_digamma_is_torchs():
    x = torch.logspace(-3, 6, 200, dtype=torch.float64)
    np.testing.assert_allclose(_digamma(x.numpy()), torch.digamma(x).numpy(), rtol=1e-8, atol=1e-8)


def test_seeds_are_the_substrings_that_say_something_of_their_own():
    seeds = _seeds({"abcab": 2, "abd": 1}, "abcd", 4)
    # "bc" is always followed by "a" and "abc" too; "ca" is always followed by "b"; "abd" occurs once.
    assert seeds == {"a": 5, "b": 5, "c": 2, "d": 1, "ab": 10, "abca": 8, "bcab": 8, "cab": 6}


@settings(max_examples=40, deadline=None)
@given(words=counted, room=st.integers(3, 12), data=st.data())
def test_unigrams_depend_on_counts_alone_and_keep_the_alphabet(words, room, data):
    alphabet = sorted(set("".join(words)))
    room = max(room, len(alphabet))
    learnt = learn_unigram(words, room, alphabet)
    pieces = [piece for piece, _ in learnt]
    assert len(pieces) == len(set(pieces)) <= room
    assert set(alphabet) <= set(pieces)
    assert all(score <= 0 and score * 64 == int(score * 64) for _, score in learnt)
    assert [score for _, score in learnt] == sorted((score for _, score in learnt), reverse=True)
    turned = dict(data.draw(st.permutations(list(words.items()))))
    assert learn_unigram(turned, room, alphabet[::-1]) == learnt


def test_unigrams_of_no_text_are_its_alphabet():
    assert [piece for piece, _ in learn_unigram({}, 5, "ba")] == ["a", "b"]


def test_what_the_alphabet_lacks_cuts_words():
    pieces = [piece for piece, _ in learn_unigram({"abxab": 9, "ab": 3}, 20, "ab")]
    assert pieces == ["ab", "a", "b"]


@settings(max_examples=60, deadline=None)
@given(words=counted, more=st.integers(0, 8))
def test_word_pieces_are_tokenizers_in_its_alphabets_order(words, more):
    alphabet = alphabet_of(words, "##")
    size = len(alphabet) + more
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=size, special_tokens=[], show_progress=False)
    library.train_from_iterator([word for word, count in words.items() for _ in range(count)], trainer)
    known = json.loads(library.to_str())["model"]["vocab"]
    theirs = sorted(known, key=known.get)
    assert sorted(theirs[: len(alphabet)]) == sorted(alphabet)
    assert learn_word_pieces(words, size, "##", theirs[: len(alphabet)]) == theirs
    ours = learn_word_pieces(words, size, "##")
    assert ours[: len(alphabet)] == alphabet
    assert learn_word_pieces(dict(reversed(words.items())), size, "##") == ours


def test_of_pairs_as_frequent_the_older_is_joined():
    # "c" is older than "##a", as all that open a word are.
    assert learn_word_pieces({"ab": 2, "cd": 2}, 9, "##")[4:] == ["##b", "##d", "ab", "cd"]


def _sentencepiece(lines, **options):
    library = pytest.importorskip("sentencepiece")
    out = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return library.SentencePieceProcessor(model_proto=out.getvalue())


def _words(lines):
    return Counter(word for line in lines for word in regex.findall("▁?[^▁]+|▁", line.replace(" ", "▁")))


@settings(max_examples=25, deadline=None)
@given(words=counted, more=st.integers(1, 6))
def test_scored_pairs_are_sentencepieces(words, more):
    lines = [" ".join([word] * count) for word, count in words.items()]
    words = _words(lines)
    alphabet = frozenset("".join(words))
    ours = learn_scored_pairs(words, more, alphabet)
    theirs = _sentencepiece(lines, model_type="bpe", vocab_size=259 + len(alphabet) + len(ours))
    assert [theirs.id_to_piece(259 + i) for i in range(len(ours))] == ours


def _lines(size):
    text = (DATA / "wikitext-2/valid.txt").read_text(encoding="utf-8").replace("<unk>", "one")[:size]
    return [line for line in text.split("\n") if line]


@pytest.mark.data
@needs_data
def test_real_text_gives_sentencepieces_scored_pairs():
    lines = _lines(150_000)
    words = _words(lines)
    alphabet = frozenset("".join(words))
    theirs = _sentencepiece(lines, model_type="bpe", vocab_size=1500)
    room = 1500 - 259 - len(alphabet)
    assert learn_scored_pairs(words, room, alphabet) == [theirs.id_to_piece(259 + i) for i in range(room)]


@pytest.mark.data
@needs_data
def test_unigrams_of_real_text_need_no_more_pieces_than_sentencepieces():
    lines = _lines(150_000)
    words = _words(lines)
    theirs = _sentencepiece(lines, model_type="unigram", vocab_size=1500)
    learnt = learn_unigram(words, 1500 - 259, sorted(set("".join(words))))
    assert len(learnt) == 1500 - 259
    ours = Unigram([piece for piece, _ in learnt], [score for _, score in learnt])
    sizes = [sum(len(ours.ids(word)) * count for word, count in words.items())]
    sizes.append(sum(map(len, theirs.encode(lines))))
    assert sizes[0] <= sizes[1]
    # Each piece is the best way to write itself.
    assert [ours.ids(piece) for piece, _ in learnt] == [(token,) for token in range(len(learnt))]


def test_sampling_needs_no_more_than_a_seed():
    model = Unigram(["a", "aa"], [-1.0, -2.0])
    draws = [[model.sample("a" * 9, 0.5, random.Random(7)) for _ in range(3)] for _ in range(2)]
    assert draws[0] == draws[1]
