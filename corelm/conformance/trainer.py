"""Properties of trainers, on a tiny model with gradient descent that remembers what it was given."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from corelm.conformance import ranks
from corelm.conformance.bench import Bench, Subject, close, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.tiny import SEEN, Descent, Loop, Memory, Silent, joined, own, refused, rows, tiny, weights
from corelm.errors import Interrupted, UserError
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import Spec
from corelm.kinds.trainer import TrainingJob

IDS = 7
"""Vocabulary of the tiny model."""


class TrainerBench(Bench):
    """In float32 arithmetic on the model's own dtype, without a compiler."""

    kind = "trainer"
    pins = {"precision": "fp32", "compile": False, "device": "cpu", "processes": 1}


def job(model: Any, batches: list[Batch], **changes: Any) -> TrainingJob:
    """Three steps of descent."""
    usual: dict[str, Any] = {
        "model": model,
        "streams": lambda processes: Loop(batches, processes.rank, processes.world),
        "objective": Spec.read("objective", "completion-only").build(),
        "optimizer": own("optimizer", Descent, learning_rate=0.5),
        "schedule": Spec.read("schedule", {"use": "cosine", "warmup": 0}),
        "steps": 3,
        "accumulate": 1,
        "checkpoints": Memory(),
        "watch": Silent(),
        "seed": 5,
    }
    return TrainingJob(**{**usual, **changes})


def _small(seed: int, **changes: Any) -> Any:
    return tiny(seed, vocab=IDS, **changes)


def _documents(draw: Draw, count: int = 6) -> list[Batch]:
    """Rows of unequal length, on purpose."""
    return rows([draw.integer("length", 2, 9) for _ in range(count)], draw.generator(), IDS)


def _trainer(part: PartUnderTest, draw: Draw, **pins: Any) -> Any:
    subject: Subject = part.bench.subject(part, draw, **pins)
    return subject.part


@property_of(
    "trainer",
    statement="However a batch is cut into micro-batches, the parameters end up the same; with and without clipping.",
    catches="a mean of means (transformers#24725), clipping per micro-batch, a schedule per micro-batch",
    examples=6,
)
def accumulation_is_one_batch(part: PartUnderTest, draw: Draw) -> None:
    """Six rows as 1, 2, 3 or 6 micro-batches."""
    trainer = _trainer(part, draw, clip=draw.choice("clip", [None, 0.05]))
    documents, seed, pieces = _documents(draw), draw.seed(), draw.choice("pieces", [6, 3, 2])
    results = []
    for count in (1, pieces):
        size = 6 // count
        batches = [joined(documents[i : i + size]) for i in range(0, 6, size)]
        model = _small(seed)
        trainer.fit(job(model, batches, accumulate=count))
        results.append(weights(model))
    close(results[1], results[0], f"six rows in {pieces} micro-batches and at once")


@property_of(
    "trainer",
    statement="Stopped after any step and gone on with in a fresh process, it ends with the same bits.",
    catches="optimizer, stream position, counters or random state missing from the checkpoint (torchtitan#1213)",
    tier="bit",
    examples=5,
)
def resumes_bit_exactly(part: PartUnderTest, draw: Draw) -> None:
    """Stop after k of 4 steps; the second model begins with other weights."""
    trainer, documents, seed = _trainer(part, draw), _documents(draw), draw.seed()
    optimizer = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.05})
    dropout = {"attention": {"use": "gqa", "heads": 2, "output_dropout": 0.2}}
    whole = _small(seed, **dropout)
    trainer.fit(job(whole, documents, steps=4, optimizer=optimizer, accumulate=2))
    k = draw.integer("k", 1, 3)
    kept, first, second = Memory(), _small(seed, **dropout), _small(seed + 1, **dropout)
    stopped = job(first, documents, steps=4, optimizer=optimizer, accumulate=2, checkpoints=kept, watch=Silent(k))
    error = refused(lambda: trainer.fit(stopped))
    assert isinstance(error, Interrupted), f"asked to stop after step {k}, it raised {error!r}"
    trainer.fit(replace(stopped, model=second, watch=Silent()))
    assert same_bits(weights(second), weights(whole)), f"stopped after step {k} and gone on with, it ends elsewhere"


@property_of(
    "trainer",
    statement="A finished job, run again, does nothing and ends the same: a checkpoint is saved at the end.",
    catches="a last step that is lost or done twice",
    tier="bit",
    examples=3,
)
def done_stays_done(part: PartUnderTest, draw: Draw) -> None:
    """Twice."""
    trainer, documents, seed, kept = _trainer(part, draw), _documents(draw), draw.seed(), Memory()
    first, second = _small(seed), _small(seed + 1)
    result = trainer.fit(job(first, documents, checkpoints=kept))
    assert kept.kept is not None and kept.kept[0] == 3, "no checkpoint at the end"
    again = trainer.fit(job(second, documents, checkpoints=kept))
    assert result.steps == again.steps == 3, f"{result.steps} and {again.steps} steps of 3"
    assert same_bits(weights(second), weights(first)), "run again, it ends elsewhere"


@property_of(
    "trainer",
    statement="At learning rate zero no bit of the model changes.",
    catches="decay without the rate, a frozen parameter that drifts",
    tier="bit",
    examples=3,
)
def zero_rate_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Three steps of nothing."""
    model = _small(draw.seed())
    before = weights(model)
    _trainer(part, draw).fit(job(model, _documents(draw), optimizer=own("optimizer", Descent, learning_rate=0.0)))
    assert same_bits(before, weights(model)), "parameters changed"


@property_of(
    "trainer",
    statement="Columns of padding change no update.",
    catches="padding in the loss or in its count",
    examples=5,
)
def padding_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """Five columns more."""
    trainer, documents, seed = _trainer(part, draw), _documents(draw, 3), draw.seed()
    results = []
    for extra in (0, 5):
        model = _small(seed)
        trainer.fit(job(model, [joined(documents, extra=extra)]))
        results.append(weights(model))
    close(results[1], results[0], "with and without padding")


@property_of(
    "trainer",
    statement="The optimizer is given the gradient of the mean loss of the step's terms, clipped to the norm asked for.",
    catches="clipping after the step, per parameter or before accumulation; gradients that aren't fresh",
    examples=6,
)
def gradients_are_the_mean_loss(part: PartUnderTest, draw: Draw) -> None:
    """Against autograd on the joined batch."""
    clip = draw.choice("clip", [0.05, None, 1e3])
    trainer, documents, seed = _trainer(part, draw, clip=clip), _documents(draw), draw.seed()
    trainer.fit(job(_small(seed), documents[:2] * 3, steps=2, accumulate=2))
    given = [dict(step) for step in SEEN]
    model = _small(seed)
    objective = Spec.read("objective", "completion-only").build()
    batch = joined(documents[:2])
    (objective.evaluate(model, batch).total / objective.count(batch)).backward()
    exact = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = float(torch.stack([g.norm() for g in exact.values()]).norm())
    factor = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
    assert set(given[0]) == set(exact), f"parameters without a step: {sorted(set(exact) - set(given[0]))}"
    for name, gradient in exact.items():
        close(given[0][name], gradient * factor, f"the gradient of {name}", 1e-6)


@property_of(
    "trainer",
    statement="Two processes that share the micro-batches train as one that has them all, whatever their lengths.",
    catches="a mean per process, which counts the terms of short batches more",
    examples=1,
    excuse=lambda part: None if part.cls.distributed else "it works alone",
)
def processes_are_one(part: PartUnderTest, draw: Draw) -> None:
    """Real processes, each with a tiny model."""
    config, seed = part.bench.subject(part, draw).config.model_dump_json(by_alias=True), draw.seed() % 2**31
    alone = ranks.train(part.cls, config, seed)
    with tempfile.TemporaryDirectory() as folder:
        for rank, found in enumerate(ranks.together(part.cls, config, seed, Path(folder))):
            close(found, alone, f"parameters of process {rank} of two, and of one alone", 1e-6)


@property_of(
    "trainer",
    statement="The learning rate follows the schedule by optimizer steps, however many micro-batches a step has.",
    catches="a schedule per micro-batch (accelerate#963)",
    tier="bit",
    examples=4,
)
def rate_follows_the_schedule(part: PartUnderTest, draw: Draw) -> None:
    """Compare the trace."""
    accumulate, schedule = draw.choice("accumulate", [1, 2, 4]), Spec.read("schedule", {"use": "cosine", "warmup": 2})
    watch = Silent()
    _trainer(part, draw).fit(
        job(_small(draw.seed()), _documents(draw), steps=5, accumulate=accumulate, schedule=schedule, watch=watch)
    )
    told, built = [figures["learning_rate"] for figures in watch.steps], schedule.build()
    expected = [0.5 * built.factor(step, 5) for step in range(5)]
    assert told == expected, f"rates {told}, the schedule says {expected}"


@property_of(
    "trainer",
    statement="Frozen parameters keep their bits, all others move.",
    catches="a group that the optimizer never sees",
    tier="bit",
    examples=4,
)
def only_the_trainable_move(part: PartUnderTest, draw: Draw) -> None:
    """Freeze the attention."""
    model = _small(draw.seed())
    before = dict(zip([n for n, _ in model.named_parameters()], weights(model), strict=True))
    _trainer(part, draw).fit(job(model, _documents(draw), trainable=lambda name: "attention" not in name))
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == ("attention" not in name), f"{name} {'moved' if moved else 'stood still'}"


@property_of(
    "trainer",
    statement="Afterwards modes, requires_grad and gradients are as before; random states too.",
    catches="a model that is left in training mode",
    tier="bit",
    examples=4,
)
def leaves_no_trace(part: PartUnderTest, draw: Draw) -> None:
    """Look at the model."""
    model = _small(draw.seed())
    next(iter(model.parameters())).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    _trainer(part, draw).fit(job(model, _documents(draw)))
    assert [module.training for module in model.modules()] == modes, "training mode is left on"
    assert [p.requires_grad for p in model.parameters()] == wanted, "requires_grad was changed"
    assert all(p.grad is None for p in model.parameters()), "gradients are left behind"


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
    statement="A loss that isn't finite stops it before the optimizer moves, naming the step and the documents.",
    catches="weights full of NaN, an error that says nothing",
    tier="io",
    examples=3,
)
def nan_stops_it(part: PartUnderTest, draw: Draw) -> None:
    """NaN at the second step."""
    model, documents = _small(draw.seed()), _documents(draw, 3)
    broken = _Breaks(Spec.read("objective", "completion-only").build(), after=1)
    error = refused(lambda: _trainer(part, draw).fit(job(model, documents, objective=broken)))
    assert isinstance(error, UserError), "NaN went on in silence"
    assert "2" in str(error) and "document 1" in str(error), f"step 2 and document 1 are not named: {error}"
    assert len(SEEN) == 1, "the optimizer moved on a broken loss"
    assert all(p.isfinite().all() for p in model.parameters()), "parameters are broken"


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
    catches="targets that are not shifted, a look ahead: any way in which what is asked leaks into what is given",
    tier="stat",
    examples=1,
)
def noise_teaches_nothing(part: PartUnderTest, draw: Draw) -> None:
    """The last 40 of 120 steps; no model is expected to be below ln V, and 3 500 tokens are off by far less than 0.05."""
    watch, model, seed = Silent(), _small(draw.seed(), dtype=torch.float32), draw.seed()
    optimizer = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.03})
    given = job(model, [], streams=lambda processes: _Noise(seed), steps=120, optimizer=optimizer, watch=watch)
    _trainer(part, draw, clip=1.0).fit(given)
    late = [figures["loss"] for figures in watch.steps[-40:]]
    loss, guessing = sum(late) / len(late), math.log(IDS)
    assert loss >= guessing - 0.05, f"the loss on unseen noise is {loss:.3f}, guessing has {guessing:.3f}"


@property_of(
    "trainer",
    statement="It learns: that each token is the one before plus one.",
    catches="a shift by two, no update, ascent",
    tier="stat",
    examples=1,
)
def learns_to_count(part: PartUnderTest, draw: Draw) -> None:
    """Loss well below that of guessing."""
    start = torch.arange(6)[:, None]
    ids = (start + torch.arange(8)) % IDS
    targets = torch.cat([ids[:, 1:], torch.full((6, 1), IGNORE)], 1)
    watch, model = Silent(), _small(draw.seed(), dtype=torch.float32)
    optimizer = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.03})
    _trainer(part, draw, clip=1.0).fit(job(model, [Batch(ids, targets)], steps=80, optimizer=optimizer, watch=watch))
    loss = watch.steps[-1]["loss"]
    assert loss < 0.5 * math.log(IDS), f"after 80 steps the loss is {loss:.3f}, guessing has {math.log(IDS):.3f}"
