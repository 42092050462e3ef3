"""Properties of objectives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.tiny import tiny
from corelm.kinds.batch import IGNORE, Batch

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

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
    """Log-probabilities that are zero without a target, logits of classes, or rewards."""
    if reads != "logprobs":
        return draw.normal(len(batch.ids), CLASSES if reads == "classes" else 1, scale=scale)
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


def _padded(batch: Batch, draw: Draw, extra: int, *, right: bool = True) -> Batch:
    """The batch with columns of any ids beside it."""
    rows, time = batch.ids.shape

    def beside(own: Tensor, padding: Tensor) -> Tensor:
        return torch.cat([own, padding] if right else [padding, own], 1)

    valid = beside(torch.ones(rows, time, dtype=torch.bool), torch.zeros(rows, extra, dtype=torch.bool))
    ids, targets = draw.ids(rows, extra, 11), torch.full((rows, extra), IGNORE)
    ids, targets = beside(batch.ids, ids), beside(batch.targets, targets)
    return Batch(ids, targets, valid=valid, extra=batch.extra, names=batch.names)


def _ready(part: PartUnderTest, draw: Draw, **pins: Any) -> tuple[Any, Batch, Tensor]:
    subject = part.bench.subject(part, draw, **pins)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["batch"], inputs["answer"]


@property_of(
    "objective",
    statement="The total over a batch is the sum of the totals over its parts, and so are the counts and figures.",
    formula="loss(x ∪ y) = loss(x) + loss(y), count and figures too",
    catches="a mean, which weighs micro-batches wrongly",
    seen="transformers#24725, transformers#35203, torchtune#1875",
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
    formula="∂loss/∂hₜ ≠ 0 ⇔ yₜ ≠ ignore",
    catches="prompts or padding that are learnt",
    seen="OpenRLHF#465, trl#1625",
    tier="bit",
    excuse=lambda part: None if part.cls.reads == "logprobs" else "it reads what is said of whole rows",
    examples=22,
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
    formula="|a| ~ 10⁴: loss, ∂loss/∂a finite",
    catches="log(sigmoid) or exp that underflows",
    examples=49,
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
    formula="∂figure = 0, count(x) ∈ ℕ",
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
    formula="loss(π(x)) = loss(x)",
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
    formula="ℓ(c, r) − ℓ(r, c) = −(c − r), ℓ(c + a, r + a) = ℓ(c, r) where nothing holds rewards near zero",
    catches="a sign, a clamp, a missing margin",
    excuse=lambda part: None if _law(part) == "pairwise-reward" else "it compares no pairs of rewards",
)
def antisymmetric(part: PartUnderTest, draw: Draw) -> None:
    """Swap neighbours."""
    objective, batch, answer = _ready(part, draw, margin=0.0, centre=0.0)
    swapped = answer.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    difference = (answer[0::2, 0] - answer[1::2, 0]).sum()
    found = objective.loss(answer, batch).total - objective.loss(swapped, batch).total
    close(found, -difference, "ℓ(c, r) − ℓ(r, c), and −(c − r)")
    if "centre" in part.cls.Config.model_fields:
        shifted = objective.loss(answer + 3.0, batch).total
        close(shifted, objective.loss(answer, batch).total, "rewards + 3")


@property_of(
    "objective",
    statement="A better answer has a smaller loss.",
    formula="loss(a − η ∂loss/∂a) < loss(a)",
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
    better = answer.detach() * 0.5 if part.cls.reads == "logprobs" else answer.detach() - 1e-4 * gradient
    assert float(objective.loss(better, batch).total.detach()) < float(total.detach()), (
        "a better answer has a larger loss"
    )


@property_of(
    "objective",
    statement="Columns of padding change neither the total nor the number of terms.",
    formula="loss(x ⧺ padding) = loss(x), count(x ⧺ padding) = count(x)",
    catches="a mean over columns, padding that is counted",
    seen="transformers#24725, trl#1625",
    examples=15,
)
def padding_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Up to five columns on the right, of any id."""
    objective, batch, answer = _ready(part, draw)
    rows, extra = len(batch.ids), draw.integer("columns", 1, 5)
    padded = _padded(batch, draw, extra)
    padding = torch.zeros(rows, extra, dtype=answer.dtype)
    longer = torch.cat([answer, padding], 1) if part.cls.reads == "logprobs" else answer
    assert objective.count(padded) == objective.count(batch), "padding is counted"
    close(objective.loss(longer, padded).total, objective.loss(answer, batch).total, "with and without padding")


@property_of(
    "objective",
    statement="What it reads are log-probabilities: over all tokens that could come, they sum to one.",
    formula="Σ_v exp answer(target = v) = 1 at every position",
    catches="targets shifted once more, a temperature or a smoothing on the way from logits to the loss",
    examples=6,
    excuse=lambda part: None if part.cls.reads == "logprobs" else "it reads what is said of whole rows",
)
def answers_sum_to_one(part: PartUnderTest, draw: Draw) -> None:
    """A row for each token of the vocabulary: the same ids, that token as target of one position."""
    subject = part.bench.subject(part, draw)
    time, vocab = draw.choice("time", [4, 2, 6]), 11
    at = draw.integer("position", 0, time - 1)
    ids = draw.ids(1, time, vocab).expand(vocab, -1).contiguous()
    targets = torch.cat([ids[:, 1:], torch.full((vocab, 1), IGNORE)], 1)
    targets[:, at] = torch.arange(vocab)
    model, batch = tiny(draw.seed(), vocab=vocab), Batch(ids, targets, names=[f"row {n}" for n in range(vocab)])
    with torch.no_grad():
        answer = subject.part.answer(model, model.hidden(batch.ids), batch)
    close(answer[:, at].exp().sum(), torch.ones((), dtype=torch.float64), "the sum over the vocabulary and one", 1e-9)


def _law(part: PartUnderTest) -> str:
    return str(getattr(part.cls, "law", part.name))


@property_of(
    "objective",
    statement="The total is that of its name: −Σ log p of targets or of labels, −Σ log σ of differences of rewards.",
    formula="next-token, completion-only: −Σ aₜ [yₜ ≠ ignore]; classification: −Σ log softmax(s)_label; pairwise-reward: "
    "−Σ log σ(r_c − r_r − margin) + centre (r_c + r_r)²",
    catches="bits for nats, a label that is off by one, a margin on the wrong side",
    examples=20,
    excuse=lambda part: (
        None
        if _law(part) in ("next-token", "completion-only", "classification", "pairwise-reward")
        else "its name promises no formula"
    ),
)
def formula_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """In plain numbers; rows without a label teach nothing."""
    subject = part.bench.subject(part, draw)
    objective, law, batch = subject.part, _law(part), batch_of(draw)
    answer = answer_to(part.cls.reads, batch, draw)
    if law in ("next-token", "completion-only"):
        learnt = objective.targets(batch) if hasattr(objective, "targets") else batch.targets
        wanted = -float(answer[learnt != IGNORE].sum())
        if law == "next-token":
            assert torch.equal(learnt[:, :-1], batch.ids[:, 1:]), "it doesn't learn every token that follows another"
    elif law == "classification":
        batch.extra["labels"][draw.integer("unlabelled", 0, len(batch.ids) - 1)] = -1
        labels = batch.extra["labels"].tolist()
        rows = [row.tolist() for row in answer]
        wanted = sum(_logsumexp(row) - row[label] for row, label in zip(rows, labels, strict=True) if label >= 0)
        assert objective.count(batch) == len(labels) - labels.count(-1), "rows without a label are counted"
    else:
        margin, centre = (getattr(subject.config, name, 0.0) for name in ("margin", "centre"))
        pairs = list(zip(answer[0::2, 0].tolist(), answer[1::2, 0].tolist(), strict=True))
        assert objective.count(batch) == len(pairs), f"{objective.count(batch)} terms in {len(pairs)} pairs"
        wanted = sum(_logsumexp([0.0, r - c + margin]) + centre * (c + r) ** 2 for c, r in pairs)
    total = objective.loss(answer, batch).total
    close(total, torch.tensor(wanted, dtype=total.dtype), f"the total, and what {law} is")


def _logsumexp(values: list[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))


@property_of(
    "objective",
    statement="A figure `accuracy` counts the rows or pairs that are right.",
    formula="accuracy = Σ [r_c > r_r], or Σ [argmax s = label]",
    catches="an accuracy of the wrong column, or of what is smaller",
    tier="bit",
    examples=12,
    excuse=lambda part: None if part.cls.reads != "logprobs" else "it guesses no class and no order",
)
def accuracy_is_counted(part: PartUnderTest, draw: Draw) -> None:
    """A dozen pairs without ties."""
    objective, batch = part.bench.subject(part, draw).part, batch_of(draw, pairs=12)
    answer = answer_to(part.cls.reads, batch, draw)
    found = objective.loss(answer, batch).sums.get("accuracy")
    if found is None:
        raise NotApplicable("it has no figure accuracy")
    if _law(part) == "pairwise-reward":
        wanted = int((answer[0::2, 0] > answer[1::2, 0]).sum())
    elif _law(part) == "classification":
        wanted = int((answer.argmax(-1) == batch.extra["labels"]).sum())
    else:
        raise NotApplicable("its name doesn't say what is right")
    assert float(found) == wanted, f"accuracy {float(found)}, {wanted} are right"


def _model(part: PartUnderTest, draw: Draw) -> Any:
    """A tiny model whose head gives what the objective reads."""
    heads: Any = {"logprobs": "", "classes": {"use": "classifier", "classes": CLASSES}, "rewards": "scalar"}
    return tiny(draw.seed(), vocab=11, head=heads[part.cls.reads])


@property_of(
    "objective",
    statement="Asked of a model, padding on either side of the rows changes neither the total nor the number of terms.",
    formula="evaluate(model, padding ⧺ x) = evaluate(model, x ⧺ padding) = evaluate(model, x)",
    catches="the last column taken for the last token, the token after padding learnt from padding",
    examples=8,
)
def padded_rows_mean_the_same(part: PartUnderTest, draw: Draw) -> None:
    """Up to four columns of any ids, on the left or on the right."""
    objective, batch, _ = _ready(part, draw)
    model, side = _model(part, draw), draw.choice("side", ["right", "left"])
    padded = _padded(batch, draw, draw.integer("columns", 1, 4), right=side == "right")
    assert objective.count(padded) == objective.count(batch), "padding is counted"
    totals = [objective.evaluate(model, some).total.double() for some in (padded, batch)]
    close(totals[0], totals[1], "the totals with and without padding", 1e-9)


class _Reporting:
    """A model whose parts report auxiliary losses."""

    def __init__(self, model: Any, losses: dict[str, list[float]]) -> None:
        self._model, self.head, self._losses = model, model.head, losses

    def hidden(self, ids: Tensor, *, auxiliary: dict[str, list[Tensor]], **facts: Any) -> Tensor:
        """The model's, with a report of two layers."""
        states: Tensor = self._model.hidden(ids, **facts)
        for name, values in self._losses.items():
            auxiliary[name] = [torch.tensor(value, dtype=states.dtype, requires_grad=True) for value in values]
        return states


@property_of(
    "objective",
    statement="What parts of the model report as auxiliary losses is added for every term, and told by name.",
    formula="total = loss + n · Σ aux, n the number of terms",
    catches="a balance of experts that is told and never learnt, or that weighs less in longer batches",
    examples=6,
)
def auxiliary_losses_are_added(part: PartUnderTest, draw: Draw) -> None:
    """With reports and without."""
    objective, batch, _ = _ready(part, draw)
    model = _model(part, draw)
    losses = {"balance": [0.3, 0.2], "router-z": [0.05]}
    plain, told = (objective.evaluate(_Reporting(model, some), batch) for some in ({}, losses))
    count = objective.count(batch)
    close(
        told.total.double(), plain.total.double() + 0.55 * count, f"the total of {count} terms with what was reported"
    )
    for name, values in losses.items():
        close(told.sums[name].double(), torch.tensor(sum(values) * count).double(), f"the figure {name}", 1e-6)
