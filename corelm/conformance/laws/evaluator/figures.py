"""What an evaluator's figures are of: each record, all of its text, and the model that was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.evaluator.bench import measure, ready
from corelm.conformance.tiny import Silent
from corelm.errors import UserError
from corelm.kinds.language_model import Likelihood, Request
from corelm.kinds.records import Choice, Conversation, Labelled, Message, Preference, Record, Text

LONG, LONGER = " and so on" * 12, " once upon a time" * 7
"""Either makes a text longer than the context of the tiny model."""


@property_of(
    "evaluator",
    statement="What has a standard error is the mean over the records, and the error is that of this mean.",
    formula="m(x₁ … xₙ) = Σ m({xᵢ})/n,  m_stderr² = Σ (m({xᵢ}) − m)²/(n(n − 1))",
    catches="a figure of one batch, the error of another figure, a variance that is divided twice or not at all",
    tolerance="rows of other widths are rounded otherwise",
    examples=3,
)
def means_and_errors_are_of_the_records(part: PartUnderTest, draw: Draw) -> None:
    """Each record on its own, then all."""
    subject, model, given, judge = ready(part, draw, sampler=[{"use": "greedy"}])
    together = measure(part, subject, model, given, judge)
    alone = [measure(part, subject, model, [record], judge) for record in given]
    names = [name for name in together if f"{name}_stderr" in together]
    if not names:
        raise NotApplicable("it tells no standard error")
    for name in names:
        values = [metrics[name] for metrics in alone]
        mean = math.fsum(values) / len(values)
        error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
        for told, wanted in ((name, mean), (f"{name}_stderr", error)):
            assert math.isclose(together[told], wanted, rel_tol=1e-5, abs_tol=1e-7), (
                f"{told} is {together[told]:.6g}, from each record on its own it is {wanted:.6g}"
            )
        assert all(metrics[f"{name}_stderr"] == 0 for metrics in alone), f"{name}_stderr of one record is not 0"


def lengthened(record: Record, by: str = LONG) -> Record:
    """The same record, at its beginning longer than the context."""
    if isinstance(record, Text | Labelled):
        return replace(record, text=by + record.text)
    if isinstance(record, Preference):
        return replace(record, prompt=(Message("user", by), *record.prompt))
    if isinstance(record, Conversation):
        return replace(record, messages=(Message("user", by), *record.messages))
    assert isinstance(record, Choice)
    return replace(record, contexts=tuple(by + context for context in record.contexts))


@property_of(
    "evaluator",
    statement="Records longer than the context are measured; what is far before the end counts no more.",
    formula="x = far ⧺ x′, |x′| ≥ context ⇒ metrics(x) = metrics of the same model",
    catches="positions beyond the table, a crash at the one long document, a beginning that is kept instead of the end",
    examples=2,
    tolerance="the same tokens are read",
)
def long_records_are_measured(part: PartUnderTest, draw: Draw) -> None:
    """All records twice as long as the context, and longer still where only the end is judged."""
    subject, model, given, judge = ready(part, draw, sampler=[{"use": "greedy"}])
    long = [lengthened(record) for record in given]
    metrics = measure(part, subject, model, long, judge)
    assert all(not math.isnan(value) for value in metrics.values()), f"of long records it says {metrics}"
    if part.cls.model_kind == "model" and not part.cls.judged:
        return
    longer = [lengthened(record, LONGER) for record in long]
    other = measure(part, subject, model, longer, judge)
    for name, value in metrics.items():
        assert math.isclose(value, other[name], rel_tol=1e-6, abs_tol=1e-9), (
            f"{name} is {value}, with more before the beginning of the context {other[name]}"
        )


@property_of(
    "evaluator",
    statement="What a model writes has all of the context before it that its answer leaves free.",
    formula="|prompt| = min(|conversation|, context − answer)",
    catches="a prompt cut to the length of the answer, a prompt that leaves no room",
    tier="bit",
    examples=2,
    excuse=lambda part: None if part.cls.judged else "no model writes for it",
)
def prompts_fill_the_context(part: PartUnderTest, draw: Draw) -> None:
    """Long conversations; the model tells what it was given."""
    subject, model, given, judge = ready(part, draw)
    seen: list[tuple[int, int]] = []
    writes = model.generate_ids

    def listening(ids: torch.Tensor, *, max_new_tokens: int, **more: Any) -> torch.Tensor:
        seen.append((ids.shape[1], max_new_tokens))
        found: torch.Tensor = writes(ids, max_new_tokens=max_new_tokens, **more)
        return found

    model.generate_ids = listening
    measure(part, subject, model, [lengthened(record) for record in given], judge)
    for prompt, answer in seen:
        assert prompt == model.context - answer, (
            f"{prompt} tokens of a long conversation were read; {model.context - answer} fit before {answer} more"
        )


@property_of(
    "evaluator",
    statement="A classifier is shown a text as it was trained on it: with the end of text after it, once.",
    formula="row of x = (… x, end of text)",
    catches="a token on which the classifier never learnt to judge",
    tier="bit",
    examples=2,
    excuse=lambda part: None if part.cls.model_kind == "classifier" else "it asks no classifier",
)
def texts_are_shown_with_their_end(part: PartUnderTest, draw: Draw) -> None:
    """Texts of some tokens, and longer than the context; the classifier tells what it was shown."""
    subject, model, given, _ = ready(part, draw)
    shown: list[tuple[int, ...]] = []
    answers, end = model.scores, model.tokenizer.end_of_text

    def listening(ids: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        real = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
        shown.extend(tuple(row[kept].tolist()) for row, kept in zip(ids, real, strict=True))
        found: torch.Tensor = answers(ids, valid)
        return found

    model.scores = listening
    texts = [*given, *(lengthened(record) for record in given)]
    measure(part, subject, model, texts)
    wanted = {
        (*model.tokenizer.encode(one.text), end)[-model.context :] for one in texts if isinstance(one, Labelled)
    }
    assert set(shown) == wanted, f"shown was {sorted(set(shown) - wanted)[:1]}, which is no text with its end"


@property_of(
    "evaluator",
    statement="A model of another kind is refused, and so is measuring without the judge that is needed.",
    formula="head ≠ what model_kind says ⇒ UserError; judged ⇔ evaluate without a judge raises UserError",
    catches="the largest of the vocabulary's logits taken for a class, a judge asked for in vain",
    tier="io",
    examples=1,
)
def other_models_are_refused(part: PartUnderTest, draw: Draw) -> None:
    """A model that writes, and no judge."""
    subject, model, given, judge = ready(part, draw)
    if part.cls.judged:
        try:
            found = subject.part.evaluate(model, given, Silent())
        except UserError:
            pass
        else:
            raise AssertionError(f"it asks for a judge, and measures without one: {found}")
    if part.cls.model_kind == "model":
        return
    from corelm.conformance.tiny import tiny

    try:
        found = measure(part, subject, tiny(draw.seed()), given, judge)
    except UserError:
        return
    raise AssertionError(f"of a model that is no {part.cls.model_kind} it measured {found}")


class _Dear:
    """A scorer for which every token of a document, or every request, costs so many nats; it keeps what it is asked."""

    def __init__(self, nats: float) -> None:
        self.nats = nats
        self.asked: list[Request] = []

    def tokenize(self, text: str) -> list[int]:
        """Bytes."""
        return list(text.encode())

    def loglikelihood(self, requests: Sequence[Request]) -> list[Likelihood]:
        """The same for each."""
        self.asked += requests
        return [Likelihood(-self.nats, False, len(r.continuation.encode())) for r in requests]

    def rolling_loglikelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        """By the length in bytes."""
        sizes = [len(text.encode()) for text in texts]
        return [Likelihood(-self.nats * size, False, size) for size in sizes]


def _scored(part: PartUnderTest) -> str | None:
    if part.cls.model_kind == "model" and not part.cls.judged:
        return None
    return "it reads more of a model than likelihoods"


@property_of(
    "evaluator",
    statement="Perplexity is the exponential of the nats per token, or of those per passage where that is what counts.",
    formula="every token (every passage) costs c nats ⇒ perplexity = eᶜ, ∞ beyond what a float holds",
    catches="two for e, an overflow on a bad model, the perplexity of a mean of perplexities",
    examples=2,
    excuse=_scored,
)
def perplexity_is_the_exponential(part: PartUnderTest, draw: Draw) -> None:
    """A scorer with one price; a price that no float's exponential can hold."""
    subject, _, given, _ = ready(part, draw)
    for nats in (0.5, 3.0, 800.0):
        metrics = measure(part, subject, _Dear(nats), given)
        if "perplexity" not in metrics:
            raise NotApplicable("it tells no perplexity")
        wanted = math.exp(nats) if nats < 700 else math.inf
        assert math.isclose(metrics["perplexity"], wanted, rel_tol=1e-9), (
            f"perplexity is {metrics['perplexity']:.6g} at {nats} nats, e to that is {wanted:.6g}"
        )


@property_of(
    "evaluator",
    statement="What a scorer is asked about is the text as it is, nothing left out between context and continuation.",
    formula="∀ request of a text: context ⧺ continuation = text",
    catches="a space that neither side has, a stripped passage",
    tier="bit",
    examples=2,
    excuse=_scored,
)
def asks_about_the_text_as_it_is(part: PartUnderTest, draw: Draw) -> None:
    """Passages with double and leading spaces."""
    subject, _, given, _ = ready(part, draw)
    texts = {f" {record.text}  so" for record in given if isinstance(record, Text)}
    scorer = _Dear(1.0)
    measure(part, subject, scorer, [Text(text, f"text {n}") for n, text in enumerate(sorted(texts))] or given)
    if not texts or not scorer.asked:
        raise NotApplicable("it asks about no part of a text")
    asked = {request.context + request.continuation for request in scorer.asked}
    assert asked == texts, f"it asked about {min(asked - texts)!r}, which is none of the texts"


@property_of(
    "evaluator",
    statement="Who can't tell two answers apart has not preferred the better one.",
    formula="s(chosen) = s(rejected) ⇒ accuracy = 0",
    catches="≥ for >, a judge that says the same of everything and is right about all",
    tier="bit",
    examples=1,
)
def indifference_earns_nothing(part: PartUnderTest, draw: Draw) -> None:
    """A judge without an opinion."""
    subject, model, given, _ = ready(part, draw)
    if part.cls.reads(subject.config) != "preference" or part.cls.model_kind != "reward-model":
        raise NotApplicable("it compares no two answers")
    model.scores = lambda ids, valid=None: torch.zeros(len(ids), 1)
    metrics = measure(part, subject, model, given)
    assert metrics[subject.part.headline] == 0, (
        f"{subject.part.headline} is {metrics[subject.part.headline]}, though all scores are equal"
    )


@property_of(
    "evaluator",
    statement="A limit of tokens takes whole documents until it is reached, and none beyond.",
    formula="tokens ≥ T with d documents, < T with d − 1",
    catches="one document too many, a document that is cut",
    tier="bit",
    examples=2,
    excuse=lambda part: None if "tokens" in part.cls.Config.model_fields else "it has no option tokens",
)
def token_limits_take_whole_documents(part: PartUnderTest, draw: Draw) -> None:
    """The first document's length is a limit that it just reaches."""
    subject, _, given, _ = ready(part, draw)

    def limited(tokens: int) -> tuple[float, float]:
        config = type(subject.config).model_validate({**subject.config.model_dump(), "tokens": tokens})
        metrics = measure(part, replace(subject, part=part.cls(config), config=config), _Dear(1.0), given)
        return metrics["documents"], metrics["tokens"]

    one, size = limited(1)
    assert one == 1, f"a limit of one token took {one:g} documents"
    for tokens, wanted in ((int(size), 1), (int(size) + 1, 2), (10**6, len(given))):
        assert limited(tokens)[0] == wanted, (
            f"a limit of {tokens} tokens took {limited(tokens)[0]:g} documents; the first one has {size:g}"
        )
