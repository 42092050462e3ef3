"""Properties of evaluators, on a tiny model."""

from __future__ import annotations

import math
from typing import Any

import torch

from corelm.conformance.bench import Bench, Subject, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.tiny import Silent, tiny, weights
from corelm.kinds.records import Choice, Conversation, Labelled, Message, Preference, Record, Text

TEXTS = (
    "The cat sat.",
    "def f(x):\n    return x",
    "aaa bbb ccc",
    "It is so, isn't it?",
    "one two three four",
    "z y x",
)


class EvaluatorBench(Bench):
    """Six records of the type that the part reads."""

    kind = "evaluator"
    pins = {"data": None, "limit": None, "tokens": None, "answer_tokens": 4, "max_new_tokens": 4, "shots": 0}


def records(reads: str) -> list[Record]:
    """A few records of each type."""
    made: dict[str, Any] = {
        "text": lambda n, t: Text(t, f"text {n}"),
        "conversation": lambda n, t: Conversation((Message("user", t), Message("assistant", "ok")), f"chat {n}"),
        "preference": lambda n, t: Preference((Message("user", t),), "yes", f"no {n}", f"pair {n}"),
        "labelled": lambda n, t: Labelled(t, n % 2, f"label {n}"),
        "choice": lambda n, t: Choice((t,), (" so", " no", f" {n}"), n % 3, f"choice {n}"),
    }
    return [made[reads](n, t) for n, t in enumerate(TEXTS)]


def _measure(
    part: PartUnderTest, subject: Subject, model: Any, given: list[Record], judge: Any = None
) -> dict[str, float]:
    more = {"judge": judge} if part.cls.judged else {}
    metrics: dict[str, float] = subject.part.evaluate(model, given, Silent(), **more)
    return metrics


def _ready(part: PartUnderTest, draw: Draw, **pins: Any) -> tuple[Subject, Any, list[Record], Any]:
    subject = part.bench.subject(part, draw, **pins)
    seed = draw.seed()
    head = {"reward-model": "scalar", "classifier": "classifier"}.get(part.cls.model_kind, "")
    judge = tiny(seed + 1, head="scalar") if part.cls.judged else None
    return subject, tiny(seed, head=head), records(part.cls.reads(subject.config)), judge


@property_of(
    "evaluator",
    statement="The result doesn't depend on the order of the records.",
    catches="a mean of batch means, memory of the record before",
    examples=3,
)
def order_is_free(part: PartUnderTest, draw: Draw) -> None:
    """Permute records."""
    subject, model, given, judge = _ready(part, draw)
    first = _measure(part, subject, model, given, judge)
    other = _measure(part, subject, model, [given[i] for i in draw.permutation(len(given)).tolist()], judge)
    assert set(first) == set(other), f"metrics {sorted(first)} and {sorted(other)}"
    for name, value in first.items():
        assert math.isclose(value, other[name], rel_tol=1e-6, abs_tol=1e-9), (
            f"{name} is {value}, permuted {other[name]}"
        )


@property_of(
    "evaluator",
    statement="The model is only read: parameters, mode and random state are as before, and a second run is the same.",
    catches="dropout in evaluation, a model that is left in another mode",
    tier="bit",
    examples=2,
)
def model_is_only_read(part: PartUnderTest, draw: Draw) -> None:
    """In training mode beforehand."""
    subject, model, given, judge = _ready(part, draw)
    model.train()
    before = weights(model)
    first = _measure(part, subject, model, given, judge)
    assert same_bits(before, weights(model)), "parameters changed"
    assert model.training, "the model was left in evaluation mode"
    assert all(p.grad is None for p in model.parameters()), "gradients are left behind"
    assert first == _measure(part, subject, model, given, judge), "measured twice, it gives two results"


@property_of(
    "evaluator",
    statement="Metrics are finite floats; the headline is one of them; each accuracy has a standard error.",
    catches="tensors in reports, a headline that isn't there",
    tier="io",
    examples=3,
)
def metrics_are_floats(part: PartUnderTest, draw: Draw) -> None:
    """Names and types."""
    subject, model, given, judge = _ready(part, draw)
    metrics = _measure(part, subject, model, given, judge)
    for name, value in metrics.items():
        assert type(value) is float and not math.isnan(value), f"{name} = {value!r}"
        if name.startswith("accuracy") and not name.endswith("_stderr"):
            assert 0 <= value <= 1, f"{name} = {value}"
            assert f"{name}_stderr" in metrics, f"{name} has no standard error"
    assert subject.part.headline in metrics, f"headline {subject.part.headline!r} is not among {sorted(metrics)}"


@property_of(
    "evaluator",
    statement="Doubling every record changes no mean.",
    catches="a sum under the name of a mean",
    examples=2,
)
def means_are_means(part: PartUnderTest, draw: Draw) -> None:
    """The headline over each record twice, under another name; names may seed what a model writes, so it is greedy."""
    subject, model, given, judge = _ready(part, draw, sampler=[{"use": "greedy"}])
    from dataclasses import replace

    twice = [*given, *(replace(record, name=f"{record.name} again") for record in given)]
    once = _measure(part, subject, model, given, judge)[subject.part.headline]
    both = _measure(part, subject, model, twice, judge)[subject.part.headline]
    assert math.isclose(once, both, rel_tol=1e-5, abs_tol=1e-8), f"{subject.part.headline} is {once}, doubled {both}"


@property_of(
    "evaluator",
    statement="A better model has the better headline: one that was fitted to the records.",
    catches="a sign, log-probabilities of the wrong tokens",
    tier="stat",
    examples=1,
    excuse=lambda part: (
        None
        if part.cls.headline in ("bits_per_byte", "perplexity")
        else "only likelihoods improve surely with fitting"
    ),
)
def fitting_helps(part: PartUnderTest, draw: Draw) -> None:
    """Thirty steps on the very texts."""
    subject, model, given, judge = _ready(part, draw)
    before = _measure(part, subject, model, given, judge)[subject.part.headline]
    texts = [model.tokenizer.encode(r.text) for r in given if isinstance(r, Text)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        for ids in texts:
            row = torch.tensor([[model.tokenizer.end_of_text, *ids]])
            (-model.logprobs(row[:, :-1], row[:, 1:]).mean()).backward()
        optimizer.step()
    after = _measure(part, subject, model, given, judge)[subject.part.headline]
    assert after < 0.8 * before, f"{subject.part.headline} was {before:.3f}, after fitting it is {after:.3f}"
