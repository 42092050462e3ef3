"""Byte-pair encoding against its definition."""

import sys
import tracemalloc
from collections import Counter
from itertools import pairwise
from typing import get_args

import pytest
from corelm_tokenizers.bpe import BytePairTokenizer
from corelm_tokenizers.counting import count_words, words_of
from corelm_tokenizers.learning import ALPHABET, learn_merges
from corelm_tokenizers.merging import join
from corelm_tokenizers.model import _LONGEST_REMEMBERED, Remembered
from corelm_tokenizers.oniguruma import as_of_16
from corelm_tokenizers.patterns import PatternName, splitter
from corelm_tokenizers.vocabulary import pieces_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trap_texts import TRAINING, texts


def applied(word, merges):
    """Ids by the definition: of all neighbours the pair learnt first, its leftmost place, until none is left."""
    results = pieces_of(merges)[1]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    symbols = list(word)
    while True:
        found = [(ranks[pair], place) for place, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not found:
            return tuple(symbols)
        rank, place = min(found)
        symbols[place : place + 2] = [results[rank]]


def learnt(words, pieces):
    """Merges by the definition: encode everything anew after each merge and count the neighbours."""

    def age(symbol):
        return ALPHABET.index(symbol) if symbol < 256 else symbol

    merges = []
    while len(merges) < pieces:
        counts = Counter()
        for word, count in words.items():
            symbols = applied(word.encode(), merges)
            for pair in pairwise(symbols):
                counts[pair] += count
        if not counts:
            break
        merges.append(min(counts, key=lambda pair: (-counts[pair], age(pair[0]), age(pair[1]))))
    return merges


words = st.dictionaries(
    st.one_of(st.text("ab", min_size=1, max_size=14), st.text("aé ", min_size=1, max_size=8), texts.filter(bool)),
    st.integers(1, 4),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(words=words, pieces=st.integers(1, 12))
@example(words={"aaaa": 1, "aaa": 2}, pieces=5)
@example(words={"\x80b": 1, "b\x80": 1, "!b": 1}, pieces=3)
def test_learning_keeps_to_the_definition(words, pieces):
    merges = learn_merges(words, pieces)
    assert merges == learnt(words, pieces)
    assert len(pieces_of(merges)[0]) == 256 + len(merges), "two merges gave the same bytes"


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(texts, st.text("ab ", max_size=14)))
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "none"])
def test_encoding_keeps_to_the_definition(pattern, text):
    tokenizer = _tokenizer(pattern)
    words = splitter(pattern).findall(text) if pattern != "none" else [text]
    assert "".join(words) == text
    expected = [symbol for word in words for symbol in applied(word.encode(), tokenizer.merges)]
    assert tokenizer.encode(text) == expected


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_merges_from_elsewhere_are_applied_by_rank_even_where_two_give_the_same_bytes(data):
    merges: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(1, 8))):
        known = [97, 98, *range(256, len(pieces_of(merges)[0]))]
        merge = (data.draw(st.sampled_from(known)), data.draw(st.sampled_from(known)))
        if merge not in merges:
            merges.append(merge)
    word = data.draw(st.text("ab", max_size=14)).encode()
    pieces, results = pieces_of(merges)
    rules = {merge: (rank, results[rank]) for rank, merge in enumerate(merges)}
    assert join(list(word), rules) == applied(word, merges)
    assert b"".join(pieces[symbol] for symbol in applied(word, merges)) == word
    assert len(set(pieces)) == len(pieces)


def test_two_ways_to_the_same_bytes_give_one_id():
    pieces, results = pieces_of([(97, 97), (256, 97), (97, 256), (257, 98)])
    assert pieces[256:] == [b"aa", b"aaa", b"aaab"]
    assert results == [256, 257, 257, 258]


def _tokenizer(pattern, kept={}):  # noqa: B006
    if pattern not in kept:
        kept[pattern] = BytePairTokenizer(BytePairTokenizer.Config(vocab_size=256 + 220 + 1, pattern=pattern))
        kept[pattern].train(TRAINING)
    return kept[pattern]


def test_long_words_take_no_more_than_a_little_longer():
    tokenizer = _tokenizer("none")
    text = "".join(TRAINING) * 60
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert all(len(word) <= _LONGEST_REMEMBERED for word in tokenizer._remembered)


def test_the_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr("corelm_tokenizers.model._REMEMBERED", 10)
    tokenizer = BytePairTokenizer(BytePairTokenizer.Config(vocab_size=257 + 20))
    tokenizer.train(TRAINING)
    expected = {word: tokenizer.encode(word) for word in "".join(TRAINING).split()}
    for word, ids in expected.items():
        assert tokenizer.encode(word) == ids
        assert len(tokenizer._remembered) <= 10
        assert len(tokenizer._remembered._older) <= 10


def test_words_that_come_again_stay_in_memory(monkeypatch):
    monkeypatch.setattr("corelm_tokenizers.model._REMEMBERED", 10)
    asked = []
    remembered = Remembered(lambda word: (asked.append(word) or len(asked),))
    for number in range(100):
        assert remembered["again"] == (1,)
        assert remembered[str(number)] == (number + 2,)
    assert asked == ["again", *map(str, range(100))]


named_patterns = pytest.mark.parametrize("pattern", [name for name in get_args(PatternName) if name != "none"])


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(texts, st.text("a \r\n.'1s\u2028é\U0001f600", max_size=30)))
@named_patterns
def test_portions_are_cut_as_the_whole_text(pattern, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corelm_tokenizers.counting._PORTION", 1)
        assert [word for words in words_of(text, pattern) for word in words] == splitter(pattern).findall(text)


@named_patterns
def test_portions_are_cut_as_the_whole_text_at_every_kind_of_space(pattern, monkeypatch):
    spaces = [character for character in map(chr, range(0x10000)) if character.isspace()]
    text = "".join(f"a{space} b {space}{space}c{space}{space} .{space} 1 {space}!{space}\n" for space in spaces)
    monkeypatch.setattr("corelm_tokenizers.counting._PORTION", 1)
    portions = list(words_of(text, pattern))
    assert len(portions) > 2 * len(spaces)
    assert [word for words in portions for word in words] == splitter(pattern).findall(text)


@settings(max_examples=150, deadline=None)
@given(text=texts)
@named_patterns
def test_both_engines_cut_alike(pattern, text):
    text = "".join(character for character in text if character < "\U00010000")
    quick, other = splitter(pattern)._quick, splitter(pattern)._pattern
    assert [found.span() for found in quick.finditer(text)] == [
        found.span() for found in other.finditer(as_of_16(text))
    ]


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_counting_takes_the_memory_of_the_different_words():
    def stream(documents):
        return (f"word{number % 100} and {number % 77}; " * 50 for number in range(documents))

    short, long = (
        peak(lambda documents=documents: count_words(stream(documents), "gpt2")) for documents in (100, 800)
    )
    assert long < 1.5 * short


def test_a_long_document_takes_little_more_memory_than_itself():
    text = "some words and a line\n" * 40_000
    words = splitter("gpt2").findall(text)
    assert peak(lambda: count_words([text], "gpt2")) < sum(map(sys.getsizeof, words)) / 3


def test_the_corpus_streams_through_training():
    alive = 0
    highest = 0

    class Document(str):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def documents():
        nonlocal alive, highest
        for _ in range(200):
            alive += 1
            highest = max(highest, alive)
            yield Document("one two three " * 10)

    tokenizer = BytePairTokenizer(BytePairTokenizer.Config(vocab_size=256 + 1 + 5))
    tokenizer.train(documents())
    assert highest <= 2


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (
            "gpt2",
            "I'll say  it's 12345 !!\n\n x",
            ["I", "'ll", " say", " ", " it", "'s", " 12345", " !!", "\n\n", " x"],
        ),
        ("gpt2", "I'LL", ["I", "'", "LL"]),
        ("cl100k", "I'LL say 12345!\n\n x", ["I", "'LL", " say", " ", "123", "45", "!\n\n", " x"]),
        ("cl100k", "(word)\n  y", ["(word", ")\n", " ", " y"]),
    ],
)
def test_words_are_cut_as_the_published_patterns_do(pattern, text, expected):
    assert splitter(pattern).findall(text) == expected
