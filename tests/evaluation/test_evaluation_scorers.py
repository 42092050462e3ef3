"""Evaluators that see a model through its likelihoods; the model is a hash of the strings it is asked about."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from corelm_evaluation import measuring
from corelm_evaluation.last_word import LastWord
from corelm_evaluation.multiple_choice import MultipleChoice
from corelm_evaluation.perplexity import Perplexity
from hypothesis import given, settings
from hypothesis import strategies as st

from corelm.errors import Interrupted, UserError
from corelm.kinds import Choice, Likelihood, Preference, Request, Text

FEW = settings(max_examples=40, deadline=None)

FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "evaluation" / "lm_eval.json").read_text())
DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[3] / "shared" / "data"))


def pseudo(context: str, continuation: str) -> tuple[float, bool]:
    number = int.from_bytes(hashlib.sha256(f"{context}\0{continuation}".encode()).digest()[:6], "big")
    return -(number % 10**7) / 10**6, number % 3 == 0


class HashScorer:
    """Answers as the model of ``tests/parity/make_evaluation_fixtures.py`` does; one token per character."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def loglikelihood(self, requests: Sequence[Request]) -> list[Likelihood]:
        self.asked += requests
        return [Likelihood(*pseudo(r.context, r.continuation), len(r.continuation)) for r in requests]

    def rolling_loglikelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        return [Likelihood(*pseudo("", text), len(text)) for text in texts]

    def generate_until(self, prompts: Sequence[str], stops: Sequence[str], *, max_new_tokens: int) -> list[str]:
        raise NotImplementedError


class Watcher:
    def __init__(self, stop_after: int = 10**9) -> None:
        self.steps: list[tuple[int, int]] = []
        self.stop_after = stop_after

    def step(self, step: int, total: int, figures: Any) -> None:
        self.steps.append((step, total))

    def note(self, message: str) -> None: ...

    @property
    def stopping(self) -> bool:
        return len(self.steps) >= self.stop_after


def measure(part: Any, records: list[Any], **options: Any) -> dict[str, float]:
    return part(part.Config(**options)).evaluate(HashScorer(), iter(records), Watcher())


def hellaswag_records() -> list[Choice]:
    return [
        Choice(
            (f"{d['activity_label']}: {d['ctx_a']} {d['ctx_b'].capitalize()}",), tuple(d["endings"]), int(d["label"])
        )
        for d in FIXTURE["documents"]["hellaswag"]
    ]


def compare(found: dict[str, float], wanted: dict[str, float], names: dict[str, str]) -> None:
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(wanted[theirs], rel=1e-12), ours


CHOICE_NAMES = {
    "accuracy": "acc",
    "accuracy_stderr": "acc_stderr",
    "accuracy_norm": "acc_norm",
    "accuracy_norm_stderr": "acc_norm_stderr",
}
WORD_NAMES = {"accuracy": "acc", "accuracy_stderr": "acc_stderr", "perplexity": "perplexity"}


def test_hellaswag_equals_lm_evaluation_harness():
    compare(measure(MultipleChoice, hellaswag_records(), wikihow=True), FIXTURE["results"]["hellaswag"], CHOICE_NAMES)


def test_winogrande_equals_lm_evaluation_harness():
    records = []
    for d in FIXTURE["documents"]["winogrande"]:
        before, after = d["sentence"].split("_", 1)
        records.append(
            Choice((before + d["option1"], before + d["option2"]), (after.strip(),) * 2, int(d["answer"]) - 1)
        )
    found = measure(MultipleChoice, records)
    wanted = FIXTURE["results"]["winogrande"]
    compare(found, wanted, {"accuracy": "acc", "accuracy_stderr": "acc_stderr"})
    assert found["accuracy_norm"] == found["accuracy"]
    assert found["chance"] == 0.5


def test_lambada_equals_lm_evaluation_harness():
    records = [Text(d["text"]) for d in FIXTURE["documents"]["lambada"]]
    compare(measure(LastWord, records), FIXTURE["results"]["lambada"], WORD_NAMES)


def test_perplexities_equal_lm_evaluation_harness():
    records = [Text(d["page"]) for d in FIXTURE["documents"]["pages"]]
    names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    compare(measure(Perplexity, records), FIXTURE["results"]["pages"], {name: name for name in names})


@pytest.mark.data
def test_the_hellaswag_file_equals_lm_evaluation_harness():
    path = DATA / "hellaswag" / "hellaswag_val_1000.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    docs = [json.loads(line) for line in path.read_text().splitlines()]
    records = [Choice((d["ctx"],), tuple(d["endings"]), d["label"], str(d["ind"])) for d in docs]
    compare(measure(MultipleChoice, records), FIXTURE["results"]["real_hellaswag"], CHOICE_NAMES)


@pytest.mark.data
def test_the_lambada_file_equals_lm_evaluation_harness():
    path = DATA / "lambada" / "lambada_openai.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    docs = [json.loads(line) for line in path.read_text().splitlines()]
    records = [Text(f"{d['context']} {d['continuation']}") for d in docs]
    compare(measure(LastWord, records), FIXTURE["results"]["real_lambada"], WORD_NAMES)


texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=8)


@FEW
@given(texts)
def test_bits_per_byte_and_perplexity_are_the_same_likelihood(documents: list[str]):
    found = measure(Perplexity, [Text(t, str(i)) for i, t in enumerate(documents)])
    nats = -sum(pseudo("", t)[0] for t in documents)
    assert found["bytes"] == sum(len(t.encode()) for t in documents)
    assert found["bits_per_byte"] * found["bytes"] * math.log(2) == pytest.approx(nats)
    assert math.log(found["perplexity"]) * found["tokens"] == pytest.approx(nats)
    assert math.log(found["byte_perplexity"]) * found["bytes"] == pytest.approx(nats)


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_records_changes_no_bit(rng: random.Random):
    documents = [Text(f"text {i} of words", str(i)) for i in range(40)]
    questions = [Choice(("c",), (f"a{i}", f"bb{i}"), i % 2, str(i)) for i in range(70)]
    for part, records in [(Perplexity, documents), (LastWord, documents), (MultipleChoice, questions)]:
        for limit in (None, 7):
            expected = measure(part, records, limit=limit)
            mixed = rng.sample(records, len(records))
            assert measure(part, mixed, limit=limit) == expected


def test_the_limits_take_so_many_records():
    documents = [Text("a word" * (i + 1), str(i)) for i in range(40)]
    assert measure(Perplexity, documents, limit=5)["documents"] == 5
    assert measure(LastWord, documents, limit=5)["passages"] == 5
    found = measure(Perplexity, documents, tokens=200)
    longest = len("a word") * 40
    assert 200 <= found["tokens"] < 200 + longest


def test_empty_texts_are_left_out_and_nothing_but_them_is_nothing():
    records = [Text("a b", "1"), Text("", "2"), Text("c", "3")]
    assert measure(Perplexity, records) == measure(Perplexity, [records[0], records[2]])
    with pytest.raises(UserError, match="nothing to evaluate on"):
        measure(Perplexity, [Text("", "2")])


def test_a_tie_goes_to_the_first_ending_and_norms_count_characters():
    class Fixed(HashScorer):
        def loglikelihood(self, requests: Sequence[Request]) -> list[Likelihood]:
            return [Likelihood({" ab": -2.0, " abcd": -3.0, " xy": -2.0}[r.continuation], True, 1) for r in requests]

    part = MultipleChoice(MultipleChoice.Config())
    found = part.evaluate(Fixed(), [Choice(("q",), ("ab", "abcd", "xy"), 0)], Watcher())
    assert (found["accuracy"], found["accuracy_norm"]) == (1.0, 0.0)
    found = part.evaluate(Fixed(), [Choice(("q",), ("ab", "abcd", "xy"), 1)], Watcher())
    assert (found["accuracy"], found["accuracy_norm"]) == (0.0, 1.0)
    assert found["gold_logprob"] == -3.0
    assert found["chance"] == pytest.approx(1 / 3)


def test_the_context_is_asked_for_as_it_stands_and_the_delimiter_opens_the_ending():
    scorer = HashScorer()
    question = Choice(("A question ",), ("one", "two"), 0)
    MultipleChoice(MultipleChoice.Config(delimiter="\n")).evaluate(scorer, [question], Watcher())
    assert scorer.asked == [Request("A question ", "\none"), Request("A question ", "\ntwo")]
    scorer = HashScorer()
    LastWord(LastWord.Config()).evaluate(scorer, [Text("over the  dog")], Watcher())
    assert scorer.asked == [Request("over the ", " dog")]


@pytest.mark.parametrize("part", [Perplexity, MultipleChoice, LastWord])
def test_no_records_is_an_error_that_says_so(part: Any):
    with pytest.raises(UserError, match="nothing to evaluate on") as caught:
        measure(part, [])
    assert caught.value.code == "no-records"


def test_records_of_another_type_are_an_error_that_names_both():
    with pytest.raises(UserError, match=r"here is a Preference, the evaluator needs a Choice"):
        measure(MultipleChoice, [Preference((), "a", "b", "here")])


@pytest.mark.parametrize(
    "question",
    [Choice(("a", "b"), ("x", "y", "z"), 0, "q7"), Choice(("a",), ("x",), 1, "q7"), Choice(("a",), (), 0, "q7")],
)
def test_a_question_without_a_right_ending_is_an_error_that_names_it(question: Choice):
    with pytest.raises(UserError, match="q7") as caught:
        measure(MultipleChoice, [question])
    assert caught.value.code == "broken-question"


@pytest.mark.parametrize("text", ["", "word", " word", "ends with "])
def test_a_passage_without_a_last_word_is_an_error(text: str):
    with pytest.raises(UserError, match="last space"):
        measure(LastWord, [Text(text, "p")])


def test_a_request_to_stop_is_heard():
    watcher = Watcher(stop_after=1)
    with pytest.raises(Interrupted):
        LastWord(LastWord.Config()).evaluate(HashScorer(), [Text(f"a {i}") for i in range(1000)], watcher)
    assert len(watcher.steps) == 1


@FEW
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_the_standard_error_is_that_of_the_unbiased_variance(values: list[float]):
    import statistics

    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert measuring.standard_error(values) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert measuring.standard_error(values[:1]) == 0.0


def test_improbable_texts_have_infinite_perplexity_instead_of_an_error():
    class Hopeless(HashScorer):
        def rolling_loglikelihood(self, texts: Sequence[str]) -> list[Likelihood]:
            return [Likelihood(-1e6, False, 1) for _ in texts]

    found = Perplexity(Perplexity.Config()).evaluate(Hopeless(), [Text("a")], Watcher())
    assert found["perplexity"] == math.inf
    assert found["bits_per_byte"] == pytest.approx(1e6 / math.log(2))


def test_mutual_information_takes_the_ending_that_gains_most_from_its_context():
    class Common(HashScorer):
        def loglikelihood(self, requests: Sequence[Request]) -> list[Likelihood]:
            alone, asked = {" the": -1.0, " heron": -9.0}, {" the": -1.5, " heron": -4.0}
            found = [(alone if r.context == "Answer:" else asked)[r.continuation] for r in requests]
            return [Likelihood(logprob, True, 1) for logprob in found]

    part = MultipleChoice(MultipleChoice.Config(neutral="Answer:"))
    questions = [Choice(("Which bird?",), ("the", "heron"), 1, str(number)) for number in range(3)]
    found = part.evaluate(Common(), questions, Watcher())
    assert part.headline == "accuracy_pmi"
    assert (found["accuracy"], found["accuracy_pmi"], found["gold_logprob"]) == (0.0, 1.0, -4.0)
    assert "accuracy_pmi" not in MultipleChoice(MultipleChoice.Config()).evaluate(Common(), questions, Watcher())
