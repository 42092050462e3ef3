"""Properties of objectives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.tiny import tiny
from corelm.kinds.batch import IGNORE, Batch

CLASSES = 4


class ObjectiveBench(Bench):
    """Batches of pairs of rows; answers are drawn, no model is needed."""

    kind = "objective"

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A batch and what a model would say."""
        batch = batch_of(draw)
        return {"batch": batch, "answer": answer_to(type(subject.part).reads, batch, draw)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Sum of the losses."""
        terms = subject.part.loss(inputs["answer"], inputs["batch"])
        return [terms.total, subject.part.count(inputs["batch"]), terms.sums]


def batch_of(draw: Draw, pairs: int | None = None) -> Batch:
    """Two to six rows; some positions teach nothing."""
    rows = 2 * (pairs or draw.integer("pairs", 1, 3))
    time = draw.choice("time", [4, 2, 6])
    ids = draw.ids(rows, time, 11)
    targets = torch.cat([ids[:, 1:], torch.full((rows, 1), IGNORE)], 1)
    hidden = torch.rand(rows, time, generator=draw.generator()) < 0.3
    hidden[:, 0] = False
    targets = targets.masked_fill(hidden, IGNORE)
    labels = torch.randint(CLASSES, (rows,), generator=draw.generator())
    return Batch(ids, targets, extra={"labels": labels}, names=[f"row {n}" for n in range(rows)])


def answer_to(reads: str, batch: Batch, draw: Draw, scale: float = 1.0) -> Tensor:
    """Log-probabilities that are zero without a target, or scores."""
    if reads == "scores":
        return draw.normal(len(batch.ids), CLASSES, scale=scale)
    logprobs = -draw.normal(*batch.ids.shape, scale=scale).abs()
    return torch.where(batch.targets == IGNORE, torch.zeros_like(logprobs), logprobs)


def cut(batch: Batch, rows: slice) -> Batch:
    """Some of the rows."""
    return Batch(
        batch.ids[rows],
        batch.targets[rows],
        extra={name: value[rows] for name, value in batch.extra.items()},
        names=batch.names[rows],
    )


def _ready(part: PartUnderTest, draw: Draw, **pins: Any) -> tuple[Any, Batch, Tensor]:
    subject = part.bench.subject(part, draw, **pins)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["batch"], inputs["answer"]


@property_of(
    "objective",
    statement="The total over a batch is the sum of the totals over its parts, and so are the counts and figures.",
    catches="a mean, which weighs micro-batches wrongly (transformers#24725)",
    examples=25,
)
def additive(part: PartUnderTest, draw: Draw) -> None:
    """Split between pairs."""
    objective, batch, answer = _ready(part, draw)
    at = 2 * draw.integer("split", 0, len(batch.ids) // 2)
    if at in (0, len(batch.ids)):
        draw.reject()
    whole = objective.loss(answer, batch)
    parts = [objective.loss(answer[r], cut(batch, r)) for r in (slice(0, at), slice(at, None))]
    close(whole.total, parts[0].total + parts[1].total, "the total, and the sum of its parts")
    counts = [objective.count(cut(batch, r)) for r in (slice(0, at), slice(at, None))]
    assert objective.count(batch) == sum(counts), f"{objective.count(batch)} terms, {counts} in the parts"
    for name, value in whole.sums.items():
        close(value.double(), parts[0].sums[name].double() + parts[1].sums[name].double(), f"figure {name}")


@property_of(
    "objective",
    statement="Positions without a target have no gradient.",
    catches="prompts or padding that are learnt",
    tier="bit",
    excuse=lambda part: None if part.cls.reads == "logprobs" else "it reads scores of whole rows",
)
def no_target_no_gradient(part: PartUnderTest, draw: Draw) -> None:
    """Differentiate the total through a head to the hidden states."""
    objective, batch, _ = _ready(part, draw)
    wanted = objective.targets(batch) if hasattr(objective, "targets") else batch.targets
    model = tiny(draw.seed(), vocab=11)
    hidden = draw.normal(*batch.ids.shape, model.dim).requires_grad_()
    total = objective.loss(objective.answer(model, hidden, batch), batch).total
    (gradient,) = torch.autograd.grad(total, hidden)
    moved = gradient.abs().sum(-1) > 0
    assert not moved[wanted == IGNORE].any(), "a position without a target has a gradient"
    assert not moved[:, -1].any(), "the last column has a gradient, though nothing follows it"
    assert moved[batch.targets != IGNORE].all(), "a position with a target has no gradient"


@property_of(
    "objective",
    statement="The loss is a finite scalar with finite gradients, however wrong the model is.",
    catches="log(sigmoid) or exp that underflows",
    examples=25,
)
def finite_when_wrong(part: PartUnderTest, draw: Draw) -> None:
    """Answers of size 10⁴."""
    subject = part.bench.subject(part, draw)
    batch = batch_of(draw)
    answer = answer_to(part.cls.reads, batch, draw, scale=draw.choice("size", [1.0, 1e3, 1e4])).requires_grad_()
    total = subject.part.loss(answer, batch).total
    assert total.dim() == 0 and total.isfinite(), f"the loss is {total}"
    (gradient,) = torch.autograd.grad(total, answer)
    assert gradient.isfinite().all(), "a gradient is not finite"


@property_of(
    "objective",
    statement="Figures are detached sums, and the number of terms is a whole number known before the forward pass.",
    catches="a graph that is kept alive, a count that depends on the answer",
    tier="io",
    examples=10,
)
def figures_are_detached(part: PartUnderTest, draw: Draw) -> None:
    """Look."""
    objective, batch, answer = _ready(part, draw)
    count = objective.count(batch)
    assert type(count) is int and count >= 0, f"count gave {count!r}"
    terms = objective.loss(answer.requires_grad_(), batch)
    for name, value in terms.sums.items():
        assert not value.requires_grad and value.dim() == 0, f"figure {name} is not a detached scalar"
    assert terms.total.requires_grad, "the total has no gradient"


@property_of(
    "objective",
    statement="Permuting rows (pairs of rows) of a batch changes nothing.",
    catches="statistics of the batch in the loss",
)
def order_of_rows_is_free(part: PartUnderTest, draw: Draw) -> None:
    """Permute pairs."""
    objective, batch, answer = _ready(part, draw)
    order = draw.permutation(len(batch.ids) // 2)
    rows = torch.stack([2 * order, 2 * order + 1], 1).flatten()
    shuffled = Batch(
        batch.ids[rows], batch.targets[rows], extra={n: v[rows] for n, v in batch.extra.items()}, names=batch.names
    )
    close(objective.loss(answer[rows], shuffled).total, objective.loss(answer, batch).total, "permuted and not")


@property_of(
    "objective",
    statement="Swapped rewards change the Bradley–Terry loss by their difference: ℓ(c, r) − ℓ(r, c) = −(c − r).",
    catches="a sign, a clamp, a missing margin",
    excuse=lambda part: (
        None if getattr(part.cls, "law", part.name) == "pairwise-reward" else "it compares no pairs of rewards"
    ),
)
def antisymmetric(part: PartUnderTest, draw: Draw) -> None:
    """Swap neighbours."""
    objective, batch, answer = _ready(part, draw, margin=0.0, centre=0.0)
    swapped = answer.view(-1, 2, CLASSES).flip(1).reshape(-1, CLASSES)
    difference = (answer[0::2, 0] - answer[1::2, 0]).sum()
    found = objective.loss(answer, batch).total - objective.loss(swapped, batch).total
    close(found, -difference, "ℓ(c, r) − ℓ(r, c), and −(c − r)")
    if "centre" in part.cls.Config.model_fields:
        shifted = objective.loss(answer + 3.0, batch).total
        close(shifted, objective.loss(answer, batch).total, "rewards + 3")


@property_of(
    "objective",
    statement="A better answer has a smaller loss.",
    catches="ascent",
    examples=15,
)
def better_is_lower(part: PartUnderTest, draw: Draw) -> None:
    """One step along the negative gradient."""
    objective, batch, answer = _ready(part, draw)
    answer = answer.requires_grad_()
    total = objective.loss(answer, batch).total
    (gradient,) = torch.autograd.grad(total, answer)
    if float(gradient.abs().max()) < 1e-12:
        raise NotApplicable("the drawn answer can't be improved")
    closer = {"logprobs": answer.detach() * 0.5, "scores": answer.detach() - 1e-4 * gradient}
    better = closer[part.cls.reads]
    assert float(objective.loss(better, batch).total.detach()) < float(total.detach()), (
        "a better answer has a larger loss"
    )
