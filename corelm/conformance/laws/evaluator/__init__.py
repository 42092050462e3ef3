"""Properties of evaluators, on a tiny model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from corelm.conformance.bench import same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.evaluator import figures
from corelm.conformance.laws.evaluator.bench import measure, ready
from corelm.conformance.laws.evaluator.figures import lengthened
from corelm.conformance.tiny import VOCAB, weights
from corelm.errors import UserError
from corelm.kinds.language_model import Likelihood, Request
from corelm.kinds.records import Choice, Labelled, Message, Preference, Record, Text

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["figures"]


@property_of(
    "evaluator",
    statement="The result doesn't depend on the order of the records.",
    formula="metrics(π(x)) = metrics(x)",
    catches="a mean of batch means, memory of the record before",
    tolerance="float32 sums in another order",
    examples=3,
)
def order_is_free(part: PartUnderTest, draw: Draw) -> None:
    """Permute records."""
    subject, model, given, judge = ready(part, draw)
    first = measure(part, subject, model, given, judge)
    other = measure(part, subject, model, [given[i] for i in draw.permutation(len(given)).tolist()], judge)
    assert set(first) == set(other), f"metrics {sorted(first)} and {sorted(other)}"
    for name, value in first.items():
        assert math.isclose(value, other[name], rel_tol=1e-6, abs_tol=1e-9), (
            f"{name} is {value}, permuted {other[name]}"
        )


@property_of(
    "evaluator",
    statement="The model is only read: parameters, mode and random state are as before, and a second run is the same.",
    formula="model after = model before, evaluate = evaluate",
    catches="dropout in evaluation, a model that is left in another mode",
    tier="bit",
    examples=2,
)
def model_is_only_read(part: PartUnderTest, draw: Draw) -> None:
    """In training mode beforehand."""
    subject, model, given, judge = ready(part, draw)
    model.train()
    before = weights(model)
    first = measure(part, subject, model, given, judge)
    assert same_bits(before, weights(model)), "parameters changed"
    assert model.training, "the model was left in evaluation mode"
    assert all(p.grad is None for p in model.parameters()), "gradients are left behind"
    assert first == measure(part, subject, model, given, judge), "measured twice, it gives two results"


@property_of(
    "evaluator",
    statement="Metrics are finite floats; the headline is one of them; each accuracy has a standard error.",
    formula="metrics: name ↦ float, headline ∈ metrics, accuracy ∈ [0, 1] with accuracy_stderr",
    catches="tensors in reports, a headline that isn't there",
    tier="io",
    examples=3,
)
def metrics_are_floats(part: PartUnderTest, draw: Draw) -> None:
    """Names and types."""
    subject, model, given, judge = ready(part, draw)
    metrics = measure(part, subject, model, given, judge)
    for name, value in metrics.items():
        assert type(value) is float and not math.isnan(value), f"{name} = {value!r}"
        if name.startswith("accuracy") and not name.endswith("_stderr"):
            assert 0 <= value <= 1, f"{name} = {value}"
            assert f"{name}_stderr" in metrics, f"{name} has no standard error"
    assert subject.part.headline in metrics, f"headline {subject.part.headline!r} is not among {sorted(metrics)}"


@property_of(
    "evaluator",
    statement="Doubling every record changes no mean.",
    formula="headline(x ∪ x) = headline(x)",
    catches="a sum under the name of a mean",
    tolerance="float32 sums in another order",
    examples=2,
)
def means_are_means(part: PartUnderTest, draw: Draw) -> None:
    """The headline over each record twice, under another name; names may seed what a model writes, so it is greedy."""
    subject, model, given, judge = ready(part, draw, sampler=[{"use": "greedy"}])
    twice = [*given, *(replace(record, name=f"{record.name} again") for record in given)]
    once = measure(part, subject, model, given, judge)[subject.part.headline]
    both = measure(part, subject, model, twice, judge)[subject.part.headline]
    assert math.isclose(once, both, rel_tol=1e-5, abs_tol=1e-8), f"{subject.part.headline} is {once}, doubled {both}"


@property_of(
    "evaluator",
    statement="A better model has the better headline: one that was fitted to the records.",
    formula="30 steps on x: headline(x) < 0.8 · before",
    catches="a sign, log-probabilities of the wrong tokens",
    tier="stat",
    tolerance="in practice less than half is left",
    examples=1,
    excuse=lambda part: (
        None
        if part.cls.headline in ("bits_per_byte", "perplexity")
        else "only likelihoods improve surely with fitting"
    ),
)
def fitting_helps(part: PartUnderTest, draw: Draw) -> None:
    """Thirty steps on the very texts."""
    subject, model, given, judge = ready(part, draw)
    before = measure(part, subject, model, given, judge)[subject.part.headline]
    texts = [model.tokenizer.encode(r.text) for r in given if isinstance(r, Text)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        for ids in texts:
            row = torch.tensor([[model.tokenizer.end_of_text, *ids]])
            (-model.logprobs(row[:, :-1], row[:, 1:]).mean()).backward()
        optimizer.step()
    after = measure(part, subject, model, given, judge)[subject.part.headline]
    assert after < 0.8 * before, f"{subject.part.headline} was {before:.3f}, after fitting it is {after:.3f}"


@property_of(
    "evaluator",
    statement="A standard error shrinks with the root of the number of records.",
    formula="se(x ∪ x)/se(x) = √((n − 1)/(2n − 1)), or √½",
    catches="a standard deviation under the name of a standard error",
    tolerance="with and without Bessel's correction: 0.674 and 0.707 for six records",
    examples=3,
)
def errors_shrink_with_the_root(part: PartUnderTest, draw: Draw) -> None:
    """Every record twice."""
    subject, model, given, judge = ready(part, draw, sampler=[{"use": "greedy"}])
    twice = [*given, *(replace(record, name=f"{record.name} again") for record in given)]
    once, both = (measure(part, subject, model, some, judge) for some in (given, twice))
    told = {name: both[name] / value for name, value in once.items() if name.endswith("_stderr") and value > 0}
    if not told:
        raise NotApplicable("it tells no standard error above zero here")
    for name, share in told.items():
        assert 0.6 < share < 0.75, f"{name} is {share:.2f} times as large over every record twice"


@property_of(
    "evaluator",
    statement="A model that guesses among V tokens has log₂ V bits per token, and of bytes so many per byte.",
    formula="p = 1/V ⇒ bits_per_byte = log₂ V · tokens/bytes",
    catches="nats for bits, tokens for bytes, a first token that is left out, characters for bytes",
    tolerance="models are exact in float64, evaluators may calculate in float32",
    examples=1,
    excuse=lambda part: None if part.cls.headline == "bits_per_byte" else "it doesn't measure bits per byte",
)
def guessing_costs_its_bits(part: PartUnderTest, draw: Draw) -> None:
    """All parameters zero, a token per byte, characters of several bytes."""
    subject, model, given, _ = ready(part, draw)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = measure(part, subject, model, [*given, Text("naïve 日本語", "several bytes")])["bits_per_byte"]
    assert math.isclose(found, math.log2(VOCAB), rel_tol=1e-6), (
        f"{found:.6f} bits, guessing costs {math.log2(VOCAB):.6f}"
    )


class _Knowing:
    """A scorer that finds what spells ``right`` likely, and nothing else; or the other way round."""

    def __init__(self, right: bool) -> None:
        self.right = right

    def tokenize(self, text: str) -> list[int]:
        """Bytes."""
        return list(text.encode())

    def loglikelihood(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Of what is asked for."""
        known = [("right" in request.continuation) == self.right for request in requests]
        sizes = [len(request.continuation.encode()) for request in requests]
        return [Likelihood(-0.1 if k else -9.0 * n, k, n) for k, n in zip(known, sizes, strict=True)]

    def judge(self, model: Any) -> Any:
        """A model whose scores say the same: of the row that spells ``right``, or of the class that is spelt."""

        def scores(ids: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
            rows = [model.tokenizer.decode(row.tolist()) for row in ids]
            if model.head.reads == "scalar":
                return torch.tensor([[float(("right" in row) == self.right)] for row in rows])
            guesses = [("class 1" in row) == self.right for row in rows]
            return torch.tensor([[1.0 - float(guess), float(guess)] for guess in guesses])

        model.scores = scores
        return model


def _exam(reads: str) -> list[Record]:
    """Records whose right answer spells ``right``."""
    made: dict[str, Any] = {
        "text": lambda n: Text(f"passage {n} ends right", f"text {n}"),
        "preference": lambda n: Preference((Message("user", "?"),), f"right {n}", f"wrong {n}", f"pair {n}"),
        "labelled": lambda n: Labelled(f"of class {n % 2}, {n}", n % 2, f"label {n}"),
        "choice": lambda n: Choice(
            (f"question {n}",),
            tuple("right" if at == n % 3 else f"wrong {at}" for at in range(3)),
            n % 3,
            f"choice {n}",
        ),
    }
    if reads not in made:
        raise NotApplicable(f"nothing is said about what is right in a {reads}")
    return [made[reads](n) for n in range(6)]


@property_of(
    "evaluator",
    statement="Who knows all the answers has accuracy 1, who knows none has 0.",
    formula="model = oracle ⇒ accuracy = 1, se = 0; model = ¬oracle ⇒ accuracy = 0",
    catches="another record's answer, an answer counted from one, the least likely ending",
    tier="bit",
    examples=16,
    excuse=lambda part: None if str(part.cls.headline).startswith("accuracy") else "it measures no accuracy",
)
def knowing_all_is_one(part: PartUnderTest, draw: Draw) -> None:
    """Scored by a script; what judges rows of tokens has its scores replaced."""
    subject, model, _, _ = ready(part, draw)
    given = _exam(part.cls.reads(subject.config))
    for right in (True, False):
        knowing = _Knowing(right)
        examined = knowing if part.cls.model_kind == "model" else knowing.judge(model)
        far = part.cls.model_kind != "model" and draw.choice("longer than the context", [False, True])
        exam = [lengthened(record) for record in given] if far else given
        metrics = measure(part, subject, examined, exam)
        for name in (name for name in metrics if name.startswith("accuracy") and not name.endswith("_stderr")):
            assert metrics[name] == float(right), (
                f"{name} is {metrics[name]}, known was {'all' if right else 'nothing'}"
            )
            assert metrics[f"{name}_stderr"] == 0.0, f"{name}_stderr is {metrics[f'{name}_stderr']}, all are alike"


@property_of(
    "evaluator",
    statement="How many records are read at once makes no difference.",
    formula="metrics(batch = b) = metrics(batch = 1), ∀ b",
    catches="a mean of means, padding that is read, a last batch that is dropped",
    seen="transformers#24725",
    tolerance="rows of other widths are rounded otherwise",
    examples=2,
    excuse=lambda part: None if "batch" in part.cls.Config.model_fields else "it has no option batch",
)
def batches_make_no_difference(part: PartUnderTest, draw: Draw) -> None:
    """One by one, four at a time, and all."""
    subject, model, given, judge = ready(part, draw)
    found = []
    for size in (1, 4, 16):
        config = type(subject.config).model_validate({**subject.config.model_dump(), "batch": size})
        other = replace(subject, part=part.cls(config), config=config)
        found.append(measure(part, other, model, given, judge))
    for size, metrics in zip((4, 16), found[1:], strict=True):
        for name, value in metrics.items():
            wanted = found[0][name]
            assert math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-9), (
                f"{name}: {wanted}, in batches of {size} {value}"
            )


@property_of(
    "evaluator",
    statement="Where there is nothing to measure, that is said.",
    formula="evaluate(∅) raises UserError",
    catches="a division by zero, a NaN in the table, a perfect score of nothing",
    tier="io",
    examples=1,
)
def nothing_is_no_result(part: PartUnderTest, draw: Draw) -> None:
    """No records."""
    subject, model, _, judge = ready(part, draw)
    try:
        found = measure(part, subject, model, [], judge)
    except UserError:
        return
    raise AssertionError(f"of no records it measured {found}")
