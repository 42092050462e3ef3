"""Properties of trainers: stopped, crashed, gone on with, and what is left when they are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from corelm.conformance.bench import same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.trainer.bench import built, documents_of, job, small
from corelm.conformance.tiny import Memory, Silent, refused, weights
from corelm.errors import Interrupted
from corelm.kinds.component import Spec


@property_of(
    "trainer",
    statement="Stopped after any step and gone on with in a fresh process, it ends with the same bits and tells the same.",
    formula="stop after k, load, rest = uninterrupted, ∀ k: parameters, buffers and figures",
    catches="optimizer, stream position, buffers, counters or random state missing from the checkpoint",
    seen="torchtitan#1213, accelerate#2016, accelerate#4071",
    tier="bit",
    examples=5,
)
def resumes_bit_exactly(part: PartUnderTest, draw: Draw) -> None:
    """Stop after k of 4 steps; the second model begins with other weights."""
    trainer, documents, seed = built(part, draw), documents_of(draw), draw.seed()
    optimizer = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.05})
    dropout = {"attention": {"use": "gqa", "heads": 2, "output_dropout": 0.2}}
    whole, first, second = (_counting(small(start, **dropout)) for start in (seed, seed, seed + 1))
    wanted = trainer.fit(job(whole, documents, steps=4, optimizer=optimizer, accumulate=2))
    k, kept = draw.integer("k", 1, 3), Memory()
    stopped = job(first, documents, steps=4, optimizer=optimizer, accumulate=2, checkpoints=kept, watch=Silent(k))
    error = refused(lambda: trainer.fit(stopped))
    assert isinstance(error, Interrupted), f"asked to stop after step {k}, it raised {error!r}"
    found = trainer.fit(replace(stopped, model=second, watch=Silent()))
    assert same_bits(weights(second), weights(whole)), f"stopped after step {k} and gone on with, it ends elsewhere"
    assert same_bits(list(second.buffers()), list(whole.buffers())), "buffers that move in training begin over"
    one, other = (
        {name: value for name, value in result.figures.items() if "second" not in name} for result in (found, wanted)
    )
    assert one == other, f"stopped after step {k} and gone on with, it tells {one}, in one piece {other}"


def _counting(model: Any) -> Any:
    """The model with a buffer that counts its passes."""
    model.register_buffer("passes", torch.zeros(()))
    model.register_forward_pre_hook(lambda module, given: module.passes.add_(1) and None)
    return model


@property_of(
    "trainer",
    statement="A finished job, run again, does nothing and ends the same: a checkpoint is saved at the end. Of nothing done "
    "no speed is told.",
    formula="fit(fit(job)) = fit(job)",
    catches="a last step that is lost or done twice, tokens per second of no tokens",
    tier="bit",
    examples=3,
)
def done_stays_done(part: PartUnderTest, draw: Draw) -> None:
    """Twice."""
    trainer, documents, seed, kept = built(part, draw), documents_of(draw), draw.seed(), Memory()
    first, second = small(seed), small(seed + 1)
    result = trainer.fit(job(first, documents, checkpoints=kept))
    assert kept.kept is not None and kept.kept[0] == 3, "no checkpoint at the end"
    again = trainer.fit(job(second, documents, checkpoints=kept))
    assert result.steps == again.steps == 3, f"{result.steps} and {again.steps} steps of 3"
    assert same_bits(weights(second), weights(first)), "run again, it ends elsewhere"
    idle = {name: value for name, value in again.figures.items() if "per_second" in name and not value > 0}
    assert not idle, f"it has done nothing, and tells a speed of it: {idle}"


@property_of(
    "trainer",
    statement="Afterwards modes, requires_grad and gradients are as before; random states too.",
    formula="modes, requires_grad, gradients, random states after = before",
    catches="a model that is left in training mode",
    tier="bit",
    examples=4,
)
def leaves_no_trace(part: PartUnderTest, draw: Draw) -> None:
    """Look at the model."""
    model = small(draw.seed())
    next(iter(model.parameters())).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    built(part, draw).fit(job(model, documents_of(draw)))
    assert [module.training for module in model.modules()] == modes, "training mode is left on"
    assert [p.requires_grad for p in model.parameters()] == wanted, "requires_grad was changed"
    assert all(p.grad is None for p in model.parameters()), "gradients are left behind"


class _Punctual(Memory):
    """Due after some step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def due(self, step: int) -> bool:
        """Then."""
        return step == self.step


class _CrashError(RuntimeError):
    """Nobody expects it."""


class _Crashing(Silent):
    """A watch that breaks after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Break, in the end."""
        super().step(step, total, figures)
        self.left -= 1
        if not self.left:
            raise _CrashError


@property_of(
    "trainer",
    statement="It saves when a checkpoint is due, and after a crash goes on from there to the same bits.",
    formula="crash at any step j > k = due: load(k) + rest = uninterrupted",
    catches="checkpoints at the end alone, a step number that is ahead of the weights, a model left in training mode",
    tier="bit",
    examples=4,
)
def survives_a_crash(part: PartUnderTest, draw: Draw) -> None:
    """Saved after step k of 4, broken off later; the second model begins with other weights."""
    trainer, documents, seed = built(part, draw), documents_of(draw), draw.seed()
    optimizer = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.05})
    whole = small(seed)
    trainer.fit(job(whole, documents, steps=4, optimizer=optimizer))
    due = draw.integer("due", 1, 2)
    kept, first, second = _Punctual(due), small(seed), small(seed + 1)
    broken = job(first, documents, steps=4, optimizer=optimizer, checkpoints=kept, watch=_Crashing(due + 1))
    try:
        trainer.fit(broken)
        raise AssertionError("what the watch raised was swallowed")
    except _CrashError:
        pass
    assert not first.training and all(p.grad is None for p in first.parameters()), "the crash left the model changed"
    assert kept.kept is not None and kept.kept[0] == due, (
        f"a checkpoint was due after step {due}, saved is {kept.kept}"
    )
    trainer.fit(replace(broken, model=second, watch=Silent()))
    assert same_bits(weights(second), weights(whole)), f"crashed and gone on with from step {due}, it ends elsewhere"


@property_of(
    "trainer",
    statement="The model's tensors stay the tensors that they are, after a training and after it was resumed.",
    formula="address(p after) = address(p before), and p is p",
    catches="parameters that are replaced in loading or casting, so that tied and wrapped ones come apart",
    tier="bit",
    examples=2,
)
def tensors_stay_where_they_are(part: PartUnderTest, draw: Draw) -> None:
    """Train, then load the checkpoint into another model."""
    trainer, documents, kept, seed = built(part, draw), documents_of(draw), Memory(), draw.seed()
    for model in (small(seed), small(seed + 1)):
        before = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
        trainer.fit(job(model, documents, checkpoints=kept))
        moved = [name for name, p in model.named_parameters() if before.get(name) != (id(p), p.data_ptr())]
        assert not moved, f"other tensors than before: {', '.join(moved)}"


@property_of(
    "trainer",
    statement="Chance follows the job's seed: the same bits for the same, others for another, and another mask each step.",
    formula="fit(seed) = fit(seed), fit(seed) ≠ fit(seed′), dropoutₛ ≠ dropoutₛ₊₁",
    catches="dropout drawn from the caller's generator, one mask for all steps, a seed that nobody reads",
    tier="bit",
    examples=2,
)
def chance_follows_the_seed(part: PartUnderTest, draw: Draw) -> None:
    """With dropout; the losses of one document at rate zero tell the masks."""
    trainer, documents, start = built(part, draw), documents_of(draw, 1), draw.seed()
    still = Spec.read("optimizer", {"use": "adamw", "learning_rate": 0.0})

    def losses(seed: int) -> list[float]:
        watch = Silent()
        model = small(start, attention={"use": "gqa", "heads": 2, "output_dropout": 0.5})
        trainer.fit(job(model, documents, seed=seed, steps=4, optimizer=still, watch=watch))
        return [figures["loss"] for figures in watch.steps]

    first = losses(5)
    assert losses(5) == first, "the same seed, another result"
    assert losses(6) != first, "another seed, the same result"
    assert len(set(first)) == len(first), "two steps drew the same dropout"


@property_of(
    "trainer",
    statement="Figures for the table are those that the steps told: the last ones, or means of them.",
    formula="min ≤ figure ≤ max over the steps told, ∀ figures that steps tell",
    catches="a mean that begins at nothing and isn't corrected for it, a sum in place of a mean",
    tolerance="a mean of equal numbers is off by rounding: 10⁻⁹ of their size",
    examples=3,
)
def figures_are_of_the_steps(part: PartUnderTest, draw: Draw) -> None:
    """Four steps; times are left out."""
    watch = Silent()
    told = built(part, draw).fit(job(small(draw.seed()), documents_of(draw), steps=4, watch=watch)).figures
    for name, figure in told.items():
        seen = [figures[name] for figures in watch.steps if name in figures and "second" not in name]
        if not seen:
            continue
        slack = 1e-9 * max(map(abs, seen))
        assert min(seen) - slack <= figure <= max(seen) + slack, f"{name} is {figure}, the steps told {seen}"


@property_of(
    "trainer",
    statement="A checkpoint of another model is refused in words, and the model stays as it was.",
    formula="names or shapes differ ⇒ UserError, p unchanged",
    catches="tensors that are left out because the checkpoint lacks them, a KeyError, half a checkpoint in a model",
    tier="io",
    examples=1,
)
def another_model_is_refused(part: PartUnderTest, draw: Draw) -> None:
    """A model with a layer more, one with a layer less, one that is wider."""
    trainer, documents, seed = built(part, draw), documents_of(draw, 1), draw.seed()
    kept = {layers: Memory() for layers in (1, 2)}
    for layers, memory in kept.items():
        trainer.fit(job(small(seed, layers=layers), documents, steps=1, checkpoints=memory))
    for made_by, changes in ((1, {"layers": 2}), (2, {"layers": 1}), (1, {"dim": 16})):
        model = small(seed, **changes)
        before = weights(model)
        error = refused(
            lambda model=model, made_by=made_by: trainer.fit(job(model, documents, checkpoints=kept[made_by]))
        )
        assert error is not None, f"the checkpoint of a model of {made_by} layers goes into one with {changes}"
        assert same_bits(weights(model), before), "a checkpoint that was refused has changed the model"
