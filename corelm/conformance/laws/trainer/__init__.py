"""Properties of trainers: what a step does."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from corelm.conformance import ranks
from corelm.conformance.bench import close, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.trainer import arithmetic, resume
from corelm.conformance.laws.trainer.bench import IDS, built, documents_of, job, small
from corelm.conformance.tiny import SEEN, Descent, Silent, joined, own, refused, rows, weights
from corelm.errors import UserError
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import Spec

MINIMUM = 9
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["arithmetic", "resume"]


@property_of(
    "trainer",
    statement="However a batch is cut into micro-batches, the parameters end up the same; with and without clipping.",
    formula="fit(b₁ ∪ … ∪ bₖ) = fit(b₁, …, bₖ accumulated), clipped or not",
    catches="a mean of means, clipping per micro-batch, a schedule per micro-batch",
    seen="transformers#24725, transformers#35203, torchtune#1875",
    tolerance="float64 sums of six rows in another order, three steps",
    examples=13,
)
def accumulation_is_one_batch(part: PartUnderTest, draw: Draw) -> None:
    """Six rows as 1, 2, 3 or 6 micro-batches."""
    trainer = built(part, draw, clip=draw.choice("clip", [None, 0.05]))
    documents, seed, pieces = documents_of(draw), draw.seed(), draw.choice("pieces", [6, 3, 2])
    results = []
    for count in (1, pieces):
        size = 6 // count
        batches = [joined(documents[i : i + size]) for i in range(0, 6, size)]
        model = small(seed)
        trainer.fit(job(model, batches, accumulate=count))
        results.append(weights(model))
    close(results[1], results[0], f"six rows in {pieces} micro-batches and at once")


@property_of(
    "trainer",
    statement="At learning rate zero no bit of the model changes.",
    formula="η = 0 ⇒ p unchanged",
    catches="decay without the rate, a frozen parameter that drifts",
    tier="bit",
    examples=3,
)
def zero_rate_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Three steps of nothing."""
    model = small(draw.seed())
    before = weights(model)
    built(part, draw).fit(job(model, documents_of(draw), optimizer=own("optimizer", Descent, learning_rate=0.0)))
    assert same_bits(before, weights(model)), "parameters changed"


@property_of(
    "trainer",
    statement="Columns of padding change no update.",
    formula="fit(b ⧺ padding) = fit(b)",
    catches="padding in the loss or in its count",
    tolerance="float64; padded rows go through sums of other lengths",
    examples=5,
)
def padding_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Five columns more."""
    trainer, documents, seed = built(part, draw), documents_of(draw, 3), draw.seed()
    results = []
    for extra in (0, 5):
        model = small(seed)
        trainer.fit(job(model, [joined(documents, extra=extra)]))
        results.append(weights(model))
    close(results[1], results[0], "with and without padding")


@property_of(
    "trainer",
    statement="The optimizer is given the gradient of the mean loss of the step's terms, clipped to the norm asked for; that "
    "mean is what is told.",
    formula="l = Σ loss/Σ count, g = ∇l, g ← g · min(1, c/(‖g‖ + 1e-6)); told is l",
    catches="clipping after the step, per parameter or before accumulation; gradients that aren't fresh",
    tolerance="implementations add 1e-6 to the norm, or not",
    examples=6,
)
def gradients_are_the_mean_loss(part: PartUnderTest, draw: Draw) -> None:
    """Against autograd on the joined batch, twice from the same place: the second step has nothing left of the first."""
    clip = draw.choice("clip", [0.05, None, 1e3])
    trainer, documents, seed = built(part, draw, clip=clip), documents_of(draw), draw.seed()
    still = own("optimizer", Descent, learning_rate=0.0)
    watch = Silent()
    result = trainer.fit(job(small(seed), documents[:2] * 3, steps=2, accumulate=2, optimizer=still, watch=watch))
    given = [dict(step) for step in SEEN]
    model = small(seed)
    objective = Spec.read("objective", "completion-only").build()
    batch = joined(documents[:2])
    loss = objective.evaluate(model, batch).total / objective.count(batch)
    loss.backward()
    exact = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = float(torch.stack([g.norm() for g in exact.values()]).norm())
    factor = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
    for told in (*(figures["loss"] for figures in watch.steps), result.figures["loss"]):
        assert abs(told - float(loss)) < 1e-6 * float(loss), (
            f"a loss of {told:.6g} is told, the mean of the terms is {loss:.6g}"
        )
    for number, found in enumerate(given, 1):
        assert set(found) == set(exact), f"parameters without a step: {sorted(set(exact) - set(found))}"
        for name, gradient in exact.items():
            close(found[name], gradient * factor, f"the gradient of {name} in step {number}", 1e-6)


@property_of(
    "trainer",
    statement="Two processes that share the micro-batches train as one that has them all, whatever their lengths. The first "
    "alone saves and reports, what stops one stops both. One goes on from the checkpoint of two, and two from that of one, "
    "where the stream is elastic; where it isn't they refuse.",
    formula="fit(2 processes) = fit(1), unequal lengths; load(2 → 1) and load(1 → 2) + rest = uninterrupted",
    catches="a mean per process, which counts the terms of short batches more; positions of one process only; two writers "
    "of one checkpoint",
    tolerance="float64, two steps: sums over processes in another order",
    examples=1,
    excuse=lambda part: None if part.cls.distributed else "it works alone",
)
def processes_are_one(part: PartUnderTest, draw: Draw) -> None:
    """Real processes, each with a tiny model."""
    device = "cpu" if torch.accelerator.is_available() else "auto"  # several processes share no accelerator
    subject, seed = part.bench.subject(part, draw, device=device), draw.seed() % 2**31
    config = subject.config.model_dump_json(by_alias=True)
    alone = ranks.train(part.cls, config, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for elastic in (False, True):
            ranks.stop(part.cls, config, seed, folder / f"alone {elastic}", elastic)
        for rank, found in enumerate(ranks.together(part.cls, config, seed, folder)):
            close(found, alone, f"parameters of process {rank} of two, and of one alone", 1e-10)
        for elastic in (False, True):
            ranks.go_on(part.cls, config, seed, folder / f"together {elastic}", elastic, True, alone)


@property_of(
    "trainer",
    statement="The learning rate follows the schedule by optimizer steps, however many micro-batches a step has; each is told "
    "by its number, the first as 1 of N.",
    formula="ηₛ = η f(s, N), s counting optimizer steps; told are s + 1 of N",
    catches="a schedule per micro-batch, steps that are told one too low",
    seen="accelerate#963, starVLA#210, diffusers#3954",
    tier="bit",
    examples=4,
)
def rate_follows_the_schedule(part: PartUnderTest, draw: Draw) -> None:
    """Compare the trace."""
    accumulate, schedule = draw.choice("accumulate", [1, 2, 4]), Spec.read("schedule", {"use": "cosine", "warmup": 2})
    watch = Silent()
    built(part, draw).fit(
        job(small(draw.seed()), documents_of(draw), steps=5, accumulate=accumulate, schedule=schedule, watch=watch)
    )
    assert watch.numbers == [(step, 5) for step in range(1, 6)], f"of five steps were told {watch.numbers}"
    told, path = [figures["learning_rate"] for figures in watch.steps], schedule.build()
    expected = [0.5 * path.factor(step, 5) for step in range(5)]
    assert told == expected, f"rates {told}, the schedule says {expected}"


@property_of(
    "trainer",
    statement="Frozen parameters keep their bits, all others move.",
    formula="p moves ⇔ trainable(p)",
    catches="a group that the optimizer never sees",
    tier="bit",
    examples=4,
)
def only_the_trainable_move(part: PartUnderTest, draw: Draw) -> None:
    """Freeze the attention."""
    model = small(draw.seed())
    before = dict(zip([n for n, _ in model.named_parameters()], weights(model), strict=True))
    built(part, draw).fit(job(model, documents_of(draw), trainable=lambda name: "attention" not in name))
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == ("attention" not in name), f"{name} {'moved' if moved else 'stood still'}"


class _Breaks:
    """An objective whose loss is NaN from a step on."""

    reads = "logprobs"

    def __init__(self, objective: Any, after: int) -> None:
        self.objective, self.after, self.calls = objective, after, 0

    def count(self, batch: Batch) -> int:
        """As usual."""
        return int(self.objective.count(batch))

    def evaluate(self, model: Any, batch: Batch) -> Any:
        """NaN after some calls."""
        terms = self.objective.evaluate(model, batch)
        self.calls += 1
        if self.calls > self.after:
            terms.total = terms.total * float("nan")
        return terms


@property_of(
    "trainer",
    statement="A loss that isn't finite stops it before the optimizer moves, naming the step and the documents; no gradient "
    "is left behind.",
    formula="loss = NaN ⇒ UserError naming step and documents, p unchanged, no gradients",
    catches="weights full of NaN, an error that says nothing",
    tier="io",
    examples=3,
)
def nan_stops_it(part: PartUnderTest, draw: Draw) -> None:
    """NaN at the second step."""
    model, documents = small(draw.seed()), documents_of(draw, 3)
    broken = _Breaks(Spec.read("objective", "completion-only").build(), after=1)
    error = refused(lambda: built(part, draw).fit(job(model, documents, objective=broken)))
    assert isinstance(error, UserError), "NaN went on in silence"
    assert "2" in str(error) and "document 1" in str(error), f"step 2 and document 1 are not named: {error}"
    assert len(SEEN) == 1, "the optimizer moved on a broken loss"
    assert all(p.isfinite().all() for p in model.parameters()), "parameters are broken"
    assert all(p.grad is None for p in model.parameters()), "the broken step's gradients are left behind"


class _Noise:
    """Independent uniform tokens, new ones in every batch."""

    def __init__(self, seed: int) -> None:
        self.seed, self.position = seed, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.position += 1
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.position)
        return joined(rows([12] * 8, generator, IDS))

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The position."""
        self.position = state["position"]


@property_of(
    "trainer",
    statement="Of tokens that are pure chance nothing can be learnt: on new ones the loss stays at that of guessing.",
    formula="x ~ uniform, new in every batch: mean loss ≥ ln V − 0.05",
    catches="targets that are not shifted, a look ahead: any way in which what is asked leaks into what is given",
    tier="stat",
    tolerance="3 500 tokens of standard deviation about one: 0.017, so three of them; the seed is fixed",
    examples=1,
)
def noise_teaches_nothing(part: PartUnderTest, draw: Draw) -> None:
    """The last 40 of 120 steps; no model is expected to be below ln V, and 3 500 tokens are off by far less than 0.05."""
    watch, model, seed = Silent(), small(draw.seed(), dtype=torch.float32), draw.seed()
    optimizer = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.03})
    given = job(model, [], streams=lambda processes: _Noise(seed), steps=120, optimizer=optimizer, watch=watch)
    built(part, draw, clip=1.0).fit(given)
    late = [figures["loss"] for figures in watch.steps[-40:]]
    loss, guessing = sum(late) / len(late), math.log(IDS)
    assert loss >= guessing - 0.05, f"the loss on unseen noise is {loss:.3f}, guessing has {guessing:.3f}"


@property_of(
    "trainer",
    statement="It learns: that each token is the one before plus one.",
    formula="xₜ₊₁ = xₜ + 1 mod V: loss < ½ ln V after 80 steps",
    catches="a shift by two, no update, ascent",
    tier="stat",
    tolerance="usually a hundredth of ln V is left",
    examples=1,
)
def learns_to_count(part: PartUnderTest, draw: Draw) -> None:
    """Loss well below that of guessing."""
    start = torch.arange(6)[:, None]
    ids = (start + torch.arange(8)) % IDS
    targets = torch.cat([ids[:, 1:], torch.full((6, 1), IGNORE)], 1)
    watch, model = Silent(), small(draw.seed(), dtype=torch.float32)
    optimizer = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.03})
    built(part, draw, clip=1.0).fit(job(model, [Batch(ids, targets)], steps=80, optimizer=optimizer, watch=watch))
    loss = watch.steps[-1]["loss"]
    assert loss < 0.5 * math.log(IDS), f"after 80 steps the loss is {loss:.3f}, guessing has {math.log(IDS):.3f}"


@property_of(
    "trainer",
    statement="The gradients of a step are those of its own micro-batches: nothing is left of the step before.",
    formula="η = 0: gₜ = ∇ loss(batch t), ∀ t",
    catches="gradients that are not cleared, or cleared before they are used",
    tolerance="float64; the same sums, up to the order of a few terms",
    examples=4,
)
def gradients_are_fresh(part: PartUnderTest, draw: Draw) -> None:
    """Three steps at rate zero, each on another document; and each document alone."""
    trainer, documents, seed = built(part, draw, clip=None), documents_of(draw, 3), draw.seed()
    still = own("optimizer", Descent, learning_rate=0.0)
    trainer.fit(job(small(seed), documents, optimizer=still))
    together = [dict(step) for step in SEEN]
    assert len(together) == 3, f"{len(together)} steps of the optimizer for 3 of the job"
    for number, document in enumerate(documents):
        trainer.fit(job(small(seed), [document], steps=1, optimizer=still))
        assert set(together[number]) == set(SEEN[0]), f"step {number + 1} gives gradients to other parameters"
        for name, gradient in SEEN[0].items():
            close(together[number][name], gradient, f"the gradient of {name} in step {number + 1}, and of its batch")
