"""What a cleaner tells: counts, and a bounded, fair, repeatable draw of samples."""

from __future__ import annotations

import json
import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from corelm.kinds import Report, Sample
from corelm.kinds.records import EXCERPT, LEAD, SAMPLES, excerpts


def filled(texts):
    report = Report()
    for number, text in enumerate(texts):
        report.count("short", f"d{number}")
        report.sample("short", f"d{number}", text, None, f"{len(text)} characters")
    return report


def test_few_samples_are_kept_and_all_are_counted():
    report = filled(f"text {number}" for number in range(100))
    assert report.reasons == {"short": 100}
    assert report.examples == {"short": ["d0", "d1", "d2"]}
    assert len(report.samples["short"]) == SAMPLES
    assert report.samples == filled(f"text {number}" for number in range(100)).samples


def test_the_draw_depends_on_texts_and_not_on_their_order():
    texts = [f"text {number}" for number in range(100)]
    drawn = [sample.before for sample in filled(texts).samples["short"]]
    random.Random(1).shuffle(texts)
    assert [sample.before for sample in filled(texts).samples["short"]] == drawn


def test_the_draw_is_fair():
    late = sum(
        int(sample.name[1:]) >= 50
        for run in range(100)
        for sample in filled(f"run {run} text {number}" for number in range(100)).samples["short"]
    )
    assert abs(late - 250) < 5 * (500 * 0.25) ** 0.5


def test_long_texts_are_not_kept():
    tracemalloc.start()
    filled(f"{number}" + "x" * 1_000_000 for number in range(20))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 500_000


def test_an_excerpt_of_a_rewritten_text_is_around_the_first_change():
    before = "x" * 5_000 + "a" + "y" * 5_000
    after = "x" * 5_000 + "y" * 5_000
    old, new = excerpts(before, after)
    assert old == "x" * LEAD + "a" + "y" * (EXCERPT - LEAD - 1)
    assert new == "x" * LEAD + "y" * (EXCERPT - LEAD)


@given(st.text("ab", max_size=9), st.text("ab", max_size=9))
def test_excerpts_of_short_texts_are_the_texts(before, after):
    assert excerpts(before, after) == (before, after)
    assert excerpts(before, None) == (before, None)


def test_a_report_is_plain_data():
    report = filled(["a"])
    report.count("rewritten", "e", 3)
    report.sample("rewritten", "e", "a", "b")
    report.seen, report.kept = 2, 1
    assert json.loads(json.dumps(report.plain())) == {
        "seen": 2,
        "kept": 1,
        "reasons": {"short": 1, "rewritten": 3},
        "examples": {"short": ["d0"], "rewritten": ["e"]},
        "samples": {
            "short": [{"name": "d0", "before": "a", "after": None, "detail": "1 characters"}],
            "rewritten": [{"name": "e", "before": "a", "after": "b", "detail": ""}],
        },
    }
    assert report.samples["rewritten"] == [Sample("e", "a", "b")]
