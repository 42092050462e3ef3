"""Near deduplication: estimates, the curve, exactness, memory."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
from corelm_data.near_dedup import CHUNK, MinHash, NearDeduplication, _Known, jaccard
from corelm_data.shingles import hashed, mixed, shingles, words
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import build

from corelm.kinds import Text


def documents(*texts):
    return [Text(text, f"d{number}") for number, text in enumerate(texts)]


def kept(texts, /, **options):
    return [int(d.name[1:]) for d in build(NearDeduplication, **options).clean(documents(*texts))]


def story(seed, length=200):
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghij", k=5)) for _ in range(length))


def changed(text, places, seed=0):
    pieces = text.split()
    for place in random.Random(seed).sample(range(len(pieces)), places):
        pieces[place] = f"new{place}"
    return " ".join(pieces)


def similarity(a, b, n=5):
    return jaccard(shingles(words(a), n), shingles(words(b), n))


def test_the_first_of_a_family_stays_and_the_others_go():
    first, other = story(1), story(2)
    texts = [first, other, changed(first, 2), first.upper().replace(" ", ", "), changed(other, 1), story(3)]
    assert kept(texts) == [0, 1, 5]


def test_the_sample_says_what_it_is_like_and_how_much():
    cleaner = build(NearDeduplication)
    list(cleaner.clean(documents(story(1), changed(story(1), 1))))
    detail = cleaner.report.samples["near-duplicate"][0].detail
    found = similarity(story(1), changed(story(1), 1))
    assert detail == f"similarity {found:.3f} to d0"


@pytest.mark.parametrize("places", range(0, 16))
def test_the_threshold_is_exact(places):
    first, second = story(1), changed(story(1), places)
    exact = similarity(first, second)
    many = {"bands": 200, "rows": 2}  # finds everything
    assert kept([first, second], similarity=exact, **many) == [0]
    assert kept([first, second], similarity=min(1.0, exact + 1e-9), **many) == ([0] if exact == 1 else [0, 1])


def test_what_was_dropped_is_compared_with_nothing():
    a, b = story(1), changed(story(1), 4)
    c = changed(b, 4, seed=1)
    assert similarity(a, b) >= 0.8 > similarity(a, c)
    assert similarity(b, c) >= 0.8
    assert kept([a, b, c], bands=200, rows=2) == [0, 2]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"abc", "a b c d e f", "a b c d e g", "a b c d e f g h", "", "!", "é"]), max_size=8))
def test_it_agrees_with_comparing_all_pairs(texts):
    slow = []
    for number, text in enumerate(texts):
        mine = shingles(words(text), 2)
        if not any(jaccard(mine, shingles(words(texts[other]), 2)) >= 0.5 for other in slow):
            slow.append(number)
    assert kept(texts, similarity=0.5, shingle=2, bands=300, rows=1) == slow


def test_signatures_estimate_the_similarity():
    hashing = MinHash(500, 1)
    for places in (2, 10, 30):
        a, b = story(1), changed(story(1), places)
        exact = similarity(a, b)
        agree = np.mean(hashing.signature(hashed(words(a), 5)) == hashing.signature(hashed(words(b), 5)))
        assert abs(agree - exact) < 5 * (exact * (1 - exact) / 500) ** 0.5


def test_the_curve_of_the_docstring_is_the_formula_and_what_happens():
    table = NearDeduplication.__doc__
    shares = [float(s) for s in re.search(r"\n\s+s +([\d. ]+)\n", table)[1].split()]
    told = [float(p) for p in re.search(r"found +([\d. ]+)\n", table)[1].split()]
    assert told == [round(1 - (1 - s**6) ** 20, 3) for s in shares]
    hashing, met, expected = MinHash(20, 6), 0, 0.0
    for seed in range(60):
        a, b = story(seed), changed(story(seed), 11, seed)
        met += bool((hashing.bands_of(hashed(words(a), 5)) == hashing.bands_of(hashed(words(b), 5))).any())
        expected += 1 - (1 - similarity(a, b) ** 6) ** 20
    assert abs(met - expected) < 5 * (60 * 0.25) ** 0.5
    assert 0.3 * 60 < expected < 0.9 * 60, "where the curve is steep"


def test_a_long_document_is_hashed_in_pieces_to_the_same_signature():
    hashes = mixed(np.arange(3 * CHUNK + 7, dtype=np.uint64))
    hashing = MinHash(3, 2)
    parts = [hashing.signature(hashes[start : start + 100]) for start in range(0, len(hashes), 100)]
    np.testing.assert_array_equal(hashing.signature(hashes), np.minimum.reduce(parts))


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(1, 5))
def test_equal_runs_have_equal_hashes_and_others_others(pieces, n):
    runs = [tuple(pieces[k : k + n]) for k in range(max(1, len(pieces) - n + 1))]
    codes = hashed(pieces, n).tolist()
    assert len(codes) == len(runs)
    assert len(set(codes)) == len(set(runs)) == len(set(zip(codes, runs, strict=True)))


def test_characters_are_for_texts_without_spaces():
    first = "".join(chr(0x4E00 + (7 * n * n) % 5000) for n in range(300))
    second = first[:150] + "新" + first[151:]
    assert kept([first, second]) == [0, 1]
    assert kept([first, second], unit="characters") == [0]


def test_what_was_remembered_long_ago_is_forgotten():
    texts = [story(n, 20) for n in range(9)]
    assert kept([*texts, texts[8], texts[6]], remember=3) == list(range(9))
    assert kept([*texts, texts[0]], remember=3) == [*range(9), 9]
    once = build(NearDeduplication, remember=3)
    first = list(once.clean(documents(*texts, texts[0], texts[8])))
    assert list(build(NearDeduplication, remember=3).clean(first)) == first


def test_tables_are_as_large_as_they_are_said_to_be_and_find_everything():
    known, draw = _Known(20), np.random.default_rng(0)
    keys = draw.integers(0, 2**63, (1_000, 20)).astype(np.uint64)
    keys[:, 3] = 7  # a band in which all are equal
    for number, row in enumerate(keys[:300]):
        known.add(row, Text(f"text {number}", f"d{number}"))
    for number in (0, 17, 299):
        assert known.candidates(keys[number]) == list(range(300))
        assert known.document(number) == Text(f"text {number}", f"d{number}")
    other = _Known(20)
    keys[:, 3] = draw.integers(0, 2**63, 1_000)
    for row in keys:
        other.add(row, Text("x", "x"))
    assert other.candidates(keys[999]) == [999]
    assert other.candidates(np.zeros(20, dtype=np.uint64)) == []
    assert 320 <= (other._keys.nbytes + other._owners.nbytes) / len(other) <= 960


def test_half_of_a_surrogate_pair_is_remembered_too():
    assert kept(["\ud800 a b c d e", "\ud800 a b c d e"]) == [0]


@pytest.mark.data
def test_no_two_kept_documents_of_c4_are_near_duplicates(data):
    rows = (data / "web-and-wiki" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    texts = [json.loads(row)["text"] for row in rows]
    copies = [f"{text} And so it ends." for text in texts[:10] if len(text.split()) > 100]
    assert kept([*texts, *copies]) == list(range(60))
