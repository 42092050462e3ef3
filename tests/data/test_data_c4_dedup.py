"""C4's rule on duplicates: of a span of sentences that comes again, only the first is kept."""

from __future__ import annotations

import tracemalloc

import pytest
from corelm_data import sentences
from corelm_data.c4_dedup import C4Deduplication
from hypothesis import given
from hypothesis import strategies as st
from reading import build

from corelm.kinds import Text

LETTERS = st.lists(st.text("abc", max_size=12), min_size=1, max_size=5)
"""Documents whose sentences are letters: spans come again all the time, and overlap."""


def spelt(letters):
    return " ".join(f"{letter}." for letter in letters)


def cleaned(documents, **options):
    cleaner = build(C4Deduplication, **options)
    kept = list(cleaner.clean([Text(text, str(number)) for number, text in enumerate(documents)]))
    return {int(document.name): document.text for document in kept}, cleaner.report


def through(documents, **options):
    """What becomes of sentences of one letter each, as letters again."""
    found, _ = cleaned(map(spelt, documents), sentences_least=1, **options)
    return {number: text.replace(".", "").replace(" ", "") for number, text in found.items()}


def spans(letters, width):
    return [letters[start : start + width] for start in range(len(letters) - width + 1)]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (["abc", "xabcy"], ["abc", "xy"]),
        (["abcde", "xabcdey", "abxcd"], ["abcde", "xy", "abxcd"]),
        (["abc", "xab", "bcx"], ["abc", "xab", "bcx"]),
        (["abcxabcy"], ["abcxy"]),
        (["aaaaaaa"], ["aaa"]),
        (["abababab"], ["abab"]),
        # What went with a repeated span was not let through, so that it may come again.
        (["bcd", "abcdxabcy"], ["bcd", "axabcy"]),
        # Neighbours that an earlier one had come between.
        (["abc", "adef", "def", "zdabcefz", "q"], ["abc", "adef", None, "zz", "q"]),
    ],
)
def test_all_but_the_first_of_a_span_of_three_sentences_are_taken_out(documents, expected):
    found = through(documents)
    assert [found.get(number) for number in range(len(documents))] == expected


@given(LETTERS, st.integers(1, 4))
def test_no_span_is_left_twice_no_sentence_is_lost_and_what_is_different_stays(documents, width):
    left = through(documents, span=width)
    remaining = [span for letters in left.values() for span in spans(letters, width)]
    assert len(remaining) == len(set(remaining))
    assert set("".join(documents)) == set("".join(left.values()))
    given_spans = [span for letters in documents for span in spans(letters, width)]
    unchanged = dict(enumerate(documents)) == left
    assert unchanged == (len(given_spans) == len(set(given_spans)))
    assert through(list(left.values()), span=width) == dict(enumerate(left.values()))


@given(st.text("a.!”) \n\r\t\u2028", max_size=40))
def test_sentences_and_gaps_make_the_text_again_and_are_as_many_as_are_counted(text):
    found, gaps = sentences.split(text)
    assert gaps[0] + "".join(a + b for a, b in zip(found, gaps[1:], strict=True)) == text
    assert not "".join(gaps).strip()
    assert len(found) >= sentences.count(text)
    assert all(sentence.strip() for sentence in found)


@given(st.lists(st.text("ab.!”) \n", max_size=30), min_size=1, max_size=4))
def test_any_text_is_cleaned_once_and_for_all(documents):
    found, _ = cleaned(documents, span=1, sentences_least=1)
    again, report = cleaned(found.values(), span=1, sentences_least=1)
    assert list(again.values()) == list(found.values())
    assert report.reasons == {}


def test_case_and_white_space_don_t_matter_and_paragraphs_stay_apart():
    first = "It is so. And so it is!\nIs it so?"
    again = "New here. IT IS  SO. And\tso it is!\n\nis it so? A word more. The end."
    found, report = cleaned([first, again])
    assert found == {0: first, 1: "New here.\n\nA word more. The end."}
    assert report.reasons == {"repeated-sentence": 3}
    assert report.samples["repeated-sentence"][0].detail == "3 of 6"


def test_what_is_left_of_too_few_sentences_is_dropped_and_documents_that_are_short_themselves_stay():
    found, report = cleaned(["A. B. C.", "A. B. C. D. E.", "D. E.", "D."])
    assert found == {0: "A. B. C.", 2: "D. E.", 3: "D."}
    assert report.reasons == {"sentence-count": 1}
    assert report.samples["sentence-count"][0].detail == "2, at least 3"


def test_memory_is_as_declared_whatever_the_length_of_texts():
    cleaner = build(C4Deduplication, remember=2_000)
    word = "long " * 20
    documents = (Text(f"{word}{n} a. {word}{n} b. {word}{n} c. {word}{n} d.", str(n)) for n in range(6_000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in cleaner.clean(documents)) == 6_000
        # Two tables of 2,000 spans in 4,096 places of eight bytes, and one of half the size while it grows.
        assert tracemalloc.get_traced_memory()[1] < 2.5 * 8 * 4_096 + 100_000
    finally:
        tracemalloc.stop()
