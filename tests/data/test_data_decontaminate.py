"""Evaluation data out of the corpus: runs of words, short items, every type of record."""

from __future__ import annotations

import json

import pytest
from corelm_data.decontaminate import Decontamination
from corelm_data.shingles import places, words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corelm.errors import UserError
from corelm.kinds import Spec, Text

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def source(tmp_path, rows, name="rows", **options):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"use": "jsonl", "path": str(path), **options}


def left(against, texts, /, **options):
    cleaner = Spec.read("cleaner", {"use": "decontaminate", "against": [against], **options}).build()
    return [d.text for d in cleaner.clean([Text(text, str(n)) for n, text in enumerate(texts)])], cleaner.report


def run(first, last):
    return " ".join(LONG.split()[first:last])


def test_thirteen_words_in_a_row_are_contamination_and_twelve_are_not(tmp_path):
    against = source(tmp_path, [{"text": LONG}])
    just, beyond = f"before {run(1, 13)} after", f"before {run(1, 14)} after"
    assert left(against, [just, beyond])[0] == [just]
    assert left(against, [f"{run(0, 12)} x {run(2, 14)}"])[1].reasons == {}


def test_case_and_punctuation_don_t_matter(tmp_path):
    against = source(tmp_path, [{"text": LONG}])
    kept, report = left(against, [run(0, 13).upper().replace(" ", " — ")])
    assert kept == []
    assert report.reasons == {"contaminated": 1}
    assert report.samples["contaminated"][0].detail == f"1 shared: {run(0, 13)}"


@pytest.mark.parametrize(("ngram", "words", "dropped"), [(8, 8, True), (8, 7, False), (3, 3, True), (1, 1, True)])
def test_runs_may_be_shorter(tmp_path, ngram, words, dropped):
    against = source(tmp_path, [{"text": LONG}])
    assert left(against, [run(2, 2 + words)], ngram=ngram)[0] == ([] if dropped else [run(2, 2 + words)])


def test_a_short_item_counts_as_a_whole_and_a_shorter_one_not_at_all(tmp_path):
    against = source(tmp_path, [{"text": run(0, 8)}, {"text": "some seven other words of no length"}])
    texts = [f"x {run(0, 8)} y", run(0, 7), "we have some seven other words of no length here"]
    assert left(against, texts)[0] == texts[1:]
    assert left(against, texts, shortest=7)[0] == texts[1:2]


def test_so_many_different_runs_may_be_asked_for(tmp_path):
    against = source(tmp_path, [{"text": LONG}])
    texts = [run(0, 13), run(0, 14), f"{run(0, 13)} x {run(0, 13)}"]
    assert left(against, texts, least=2)[0] == [texts[0], texts[2]]


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"context": run(0, 7), "endings": ["no", run(7, 14)], "gold": 0}, {"yields": "choice"}),
        ({"context": [run(0, 7), "no"], "endings": run(7, 14), "gold": 0}, {"yields": "choice"}),
        ({"prompt": "What?", "response": LONG}, {"yields": "conversation"}),
        ({"prompt": "What?", "chosen": "no", "rejected": LONG}, {"yields": "preference"}),
        ({"text": LONG, "label": 1}, {"yields": "labelled"}),
    ],
)
def test_every_type_of_record_is_read(tmp_path, row, options):
    assert left(source(tmp_path, [row], **options), [LONG, "clean"])[0] == ["clean"]


def test_the_data_of_an_evaluator_are_read_up_to_its_limit(tmp_path):
    rows = source(tmp_path, [{"text": "nothing of interest in here at all"}, {"text": LONG}])
    for limit, expected in ((None, []), (1, [LONG])):
        task = {"use": "last-word", "data": {"source": rows, "limit": limit}}
        cleaner = Spec.read("cleaner", {"use": "decontaminate", "tasks": [task]}).build()
        assert [d.text for d in cleaner.clean([Text(LONG, "a")])] == expected


def test_no_evaluation_data_and_tasks_without_data_are_refused():
    with pytest.raises(ValidationError, match="what shall not be in the corpus"):
        Decontamination.Config()
    with pytest.raises(ValidationError, match="the task perplexity has no data of its own"):
        Decontamination.Config.model_validate({"tasks": ["perplexity"]})


def test_evaluation_data_that_can_t_be_read_are_named(tmp_path):
    missing = {"use": "jsonl", "path": str(tmp_path / "missing.jsonl")}
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        left(missing, ["text"])


def test_a_window_around_each_run_goes_and_the_pieces_stay_one_document(tmp_path):
    against = source(tmp_path, [{"text": LONG}])
    a, b, c = "a" * 300 + ".", "b" * 300 + ".", "c" * 300
    text = f"{a} {run(0, 13)}! {b} {run(1, 14)} {c}"
    kept, report = left(against, [text], remove="window")
    # A window goes 200 characters on either side: of a and c 100 are left, of b none is.
    assert kept == [] and report.reasons == {"contaminated": 1}
    kept, report = left(against, [text], remove="window", piece_least=100)
    assert kept == [f"{'a' * 102}\n\n{'c' * 101}"]
    assert report.reasons == {"contaminated-window": 1}
    kept, report = left(against, [text], remove="window", window=1)
    assert kept == [f"{a}\n\n{b}\n\n{c}"]
    assert report.reasons == {"contaminated-window": 2}
    assert report.samples["contaminated-window"][0].detail == f"2 shared: {run(0, 13)}"
    assert left(against, [text], remove="window", window=1, pieces_most=2)[1].reasons == {"contaminated": 1}


def test_books_that_an_item_quotes_stay_but_for_the_quotation(tmp_path):
    against = source(tmp_path, [{"text": f"As it says, {run(0, 13)}. What is it?"}])
    book = [f"Sentence {number} of a long book is here." for number in range(2_000)]
    quoted = " ".join([*book[:1_000], run(0, 13), *book[1_000:]])
    (kept,), report = left(against, [quoted], remove="window")
    assert len(quoted) - len(kept) == 400 + len(run(0, 13)) - len("\n\n")
    assert report.reasons == {"contaminated-window": 1}


def test_pieces_that_make_a_run_together_are_cut_again(tmp_path):
    against = source(tmp_path, [{"text": "a b c d"}])
    options = {"ngram": 4, "remove": "window", "window": 0, "piece_least": 1}
    kept, report = left(against, ["x a b a b c d c d y"], **options)
    assert kept == ["x\n\ny"]
    assert report.reasons == {"contaminated-window": 2}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from(["İs", "A", "b", "ΣΑΣ", "ﬁn", ",", "ẞ", " ", "\n"]), max_size=30).map("".join),
    window=st.integers(0, 3),
)
def test_nothing_that_is_shared_is_left_whatever_letters_there_are(text, window, tmp_path):
    against = source(tmp_path, [{"text": "İs A"}, {"text": "b b"}, {"text": "ΣΑΣ"}])
    options = {"ngram": 2, "shortest": 1, "remove": "window", "window": window, "piece_least": 1}
    kept, _ = left(against, [text], **options, pieces_most=99)
    assert left(against, kept, **options)[1].reasons == {}
    for document in kept:
        rest = iter(text)
        assert all(character in rest for character in document.replace("\n\n", ""))
    assert all(
        word in text[start:stop].lower() for word, (start, stop) in zip(words(text), places(text), strict=True)
    )


@pytest.mark.data
def test_wikipedia_s_test_part_is_found_in_itself(data):
    against = {"use": "text-files", "paths": [str(data / "wikitext-2" / "test.txt")]}
    paragraph = next(
        line for line in (data / "wikitext-2" / "test.txt").read_text().split("\n") if len(line.split()) > 60
    )
    other = (data / "the-verdict" / "the-verdict.txt").read_text()
    assert left(against, [f"{other}\n{paragraph}", other])[0] == [other]
