"""Properties of optimizers: what any update rule owes, whatever it computes."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from torch import Tensor, nn

from corelm.conformance.bench import close, leaves, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.optimizer import formula, tensors
from corelm.conformance.laws.optimizer.bench import DECAYED, current, decay_of, fresh, move

MINIMUM = 8
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["formula", "tensors"]


@property_of(
    "optimizer",
    statement="A parameter whose gradient is None stays as it is, to the bit, and so does its state.",
    formula="g = None ⇒ p, m, v, t unchanged",
    catches="None taken for zero, so that decay and moments go on",
    tier="bit",
    examples=12,
)
def none_means_untouched(part: PartUnderTest, draw: Draw) -> None:
    """Leave every second gradient out after a first step."""
    subject = part.bench.subject(part, draw)
    optimizer = fresh(subject)
    move(optimizer, part.bench.inputs(subject, draw)["gradients"][0])
    before, state = current(optimizer), copy.deepcopy(optimizer.state_dict())
    gradients: list[Tensor | None] = [torch.ones_like(p) if i % 2 else None for i, p in enumerate(before)]
    move(optimizer, gradients)
    for i, ((name, after, _), old) in enumerate(zip(optimizer.parameters, before, strict=True)):
        if i % 2 == 0:
            assert torch.equal(after, old), f"{name} moved without a gradient"
            assert same_bits(_part_of(optimizer.state_dict(), name), _part_of(state, name)), f"state of {name} moved"
        else:
            assert not torch.equal(after, old), f"{name} has a gradient and stood still"


def _part_of(state: Any, name: str) -> list[Any]:
    """Everything in a nested state that is filed under a name."""
    if isinstance(state, dict):
        return [x for k, v in state.items() for x in (leaves(v) if k == name else _part_of(v, name))]
    return []


@property_of(
    "optimizer",
    statement="With a zero gradient from a zero state, weights shrink by exactly lr · decay, on the declared roles only.",
    formula="g = 0, state 0 ⇒ p ← p (1 − ηλ)",
    catches="decay without the learning rate, decay of norms and biases",
    examples=12,
)
def decay_is_decoupled(part: PartUnderTest, draw: Draw) -> None:
    """p ← p (1 − lr · wd)."""
    subject = part.bench.subject(part, draw, weight_decay=draw.choice("weight_decay", [0.0, 0.1, 0.5]))
    decay, scale = decay_of(subject), draw.choice("scale", [1.0, 0.5])
    optimizer = fresh(subject)
    before = current(optimizer)
    move(optimizer, [torch.zeros_like(p) for p in before], scale)
    roles = getattr(subject.config, "decayed", DECAYED)
    for (name, after, info), old in zip(optimizer.parameters, before, strict=True):
        factor = 1 - optimizer.learning_rate * scale * decay if info.role in roles else 1.0
        close(after, old * factor, f"{name} after a step of zero gradient")


@property_of(
    "optimizer",
    statement="What decay adds to a step is −lr · decay · p, whatever the gradient.",
    formula="Δ(λ) − Δ(0) = −ηλp",
    catches="decay added to the gradient (L2), where moments swallow it",
    seen="keras#19051",
    tolerance="the difference of two steps of gradients up to 100 times larger: 1e-9 of that",
    examples=12,
)
def decay_ignores_gradients(part: PartUnderTest, draw: Draw) -> None:
    """With and without decay, gradients from tiny to large."""
    without = part.bench.subject(part, draw, weight_decay=0.0)
    decay_of(without)
    strong = type(without.config).model_validate({**without.config.model_dump(), "weight_decay": 0.3})
    size = draw.choice("gradients ×", [1.0, 1e-3, 1e2])
    gradients = [draw.normal(*p.shape, scale=size) for _, p, _ in without.arguments[0]]
    plain, start = fresh(without), current(fresh(without))
    decayed = type(without.part)(strong, fresh(without).parameters)
    move(plain, gradients)
    move(decayed, gradients)
    roles = getattr(without.config, "decayed", DECAYED)
    for (name, a, info), (_, b, _), p in zip(plain.parameters, decayed.parameters, start, strict=True):
        expected = -plain.learning_rate * 0.3 * p if info.role in roles else torch.zeros_like(p)
        close(b - a, expected, f"what decay adds to the step of {name}", 1e-9)


@property_of(
    "optimizer",
    statement="From ten of its own first steps away, with the rate falling to zero, it comes within half a step of the "
    "bottom of a quadratic bowl.",
    formula="f(p) = ½‖p − a‖², η falling to 0: |p₄₀₀ − a| < ½ first step",
    catches="ascent, a step that forgets the sign, steps that die out",
    tier="stat",
    tolerance="the way is ten first steps, there is time for 200",
    examples=4,
)
def finds_the_bottom(part: PartUnderTest, draw: Draw) -> None:
    """‖p − a‖² in 400 steps, which is a way of 200 first steps.

    What a step moves follows from rate, shape and role, so the distance is measured in steps of each parameter. A
    direction of unit singular values covers a gradient of rank one slowest: at most √rank = 2 times slower here.
    """
    subject = part.bench.subject(part, draw, weight_decay=0.0)
    start = current(fresh(subject))
    signs = [torch.sign(draw.normal(*p.shape)) for p in start]
    probe = fresh(subject)
    move(probe, [-sign for sign in signs])
    strides = [float((p - old).abs().mean()) for p, old in zip(current(probe), start, strict=True)]
    optimizer, steps = fresh(subject), 400
    bottoms = [p + 10 * stride * sign for p, stride, sign in zip(start, strides, signs, strict=True)]
    for step in range(steps):
        pulls = [p.detach() - a for (_, p, _), a in zip(optimizer.parameters, bottoms, strict=True)]
        move(optimizer, pulls, 1 - step / steps)
    for (name, p, _), a, stride in zip(optimizer.parameters, bottoms, strides, strict=True):
        assert stride > 0, f"{name} did not move in the first step"
        distance = float((p - a).detach().abs().mean()) / stride
        assert distance < 0.5, f"{name} is {distance:.3f} first steps from the bottom on average, it began at 10"


@property_of(
    "optimizer",
    statement="Negated gradients give the negated path.",
    formula="path(−g) − p₀ = −(path(g) − p₀)",
    catches="an absolute value, a bias of the step",
    examples=8,
)
def odd_in_gradients(part: PartUnderTest, draw: Draw) -> None:
    """Mirror."""
    subject = part.bench.subject(part, draw, weight_decay=0.0)
    gradients = part.bench.inputs(subject, draw)["gradients"]
    up, down = fresh(subject), fresh(subject)
    start = current(up)
    for step in gradients:
        move(up, step)
        move(down, [-g for g in step])
    moved = [a - s for a, s in zip(current(up), start, strict=True)]
    close([s - b for b, s in zip(current(down), start, strict=True)], moved, "the mirrored path", 1e-9)


@property_of(
    "optimizer",
    statement="Parameters are updated as if each were alone; missing gradients are simply no steps.",
    formula="step({a, b}) = step({a}) ∪ step({b})",
    catches="one step counter for all, a norm over all parameters",
    tolerance="kernels over lists may round otherwise than over one tensor",
    examples=12,
)
def parameters_are_separate(part: PartUnderTest, draw: Draw) -> None:
    """Together, one of them now and then; and apart."""
    subject = part.bench.subject(part, draw)
    gradients = part.bench.inputs(subject, draw)["gradients"]
    together = fresh(subject)
    late = draw.integer("late", 0, len(together.parameters) - 1)
    for step, values in enumerate(gradients):
        move(together, [None if i == late and step == 0 else g for i, g in enumerate(values)])
    for i, (name, p, _) in enumerate(together.parameters):
        alone = fresh(subject, [name])
        for step, values in enumerate(gradients):
            if not (i == late and step == 0):
                move(alone, [values[i]])
        close(p, alone.parameters[0][1], f"{name} among others and alone", 1e-12)


@property_of(
    "optimizer",
    statement="State saved after any step and loaded into a fresh optimizer goes on to the same bits; it is never shared.",
    formula="load(save(k steps)) + rest = uninterrupted, ∀ k",
    catches="a step counter that isn't saved, moments that alias the loaded dict",
    tier="bit",
    examples=14,
)
def state_resumes(part: PartUnderTest, draw: Draw) -> None:
    """k steps, save, the rest."""
    subject = part.bench.subject(part, draw)
    gradients = part.bench.inputs(subject, draw)["gradients"]
    k = draw.integer("k", 0, 2)
    whole = fresh(subject)
    for values in gradients[:k]:
        move(whole, values)
    saved = copy.deepcopy(whole.state_dict())
    _plain(saved)
    resumed = fresh(subject)
    for (_, new, _), (_, old, _) in zip(resumed.parameters, whole.parameters, strict=True):
        new.data.copy_(old.data)
    resumed.load_state_dict(saved)
    kept = copy.deepcopy(saved)
    for values in gradients[k:]:
        move(whole, values)
        move(resumed, values)
    assert same_bits(current(whole), current(resumed)), f"resumed after {k} steps, it ends elsewhere"
    assert same_bits(saved, kept), "the loaded state was changed by later steps: it is shared, not copied"


def _plain(state: Any) -> None:
    """Tensors and plain data only."""
    for leaf in leaves(state):
        if not isinstance(leaf, Tensor):
            json.dumps(leaf)


@property_of(
    "optimizer",
    statement="The scale multiplies the learning rate: at zero nothing moves, to the bit.",
    formula="scale = 0 ⇒ p unchanged",
    catches="decay without the schedule, a frozen parameter that drifts",
    tier="bit",
    examples=8,
)
def zero_rate_is_still(part: PartUnderTest, draw: Draw) -> None:
    """Scale 0."""
    subject = part.bench.subject(part, draw)
    optimizer = fresh(subject)
    before = current(optimizer)
    for gradients in part.bench.inputs(subject, draw)["gradients"]:
        move(optimizer, gradients, 0.0)
    assert same_bits(before, current(optimizer)), "parameters moved at learning rate zero"


@property_of(
    "optimizer",
    statement="A tensor that is listed twice is refused, and so is a name that two tensors have.",
    formula="pᵢ is pⱼ or name_i = name_j, i ≠ j ⇒ an error that names one of them",
    catches="two updates per step for tied tensors, one state for two tensors",
    tier="io",
    examples=2,
)
def doubles_are_refused(part: PartUnderTest, draw: Draw) -> None:
    """Tied under two names; apart under one."""
    subject = part.bench.subject(part, draw)
    name, parameter, info = subject.arguments[0][0]
    other = nn.Parameter(parameter.detach().clone())
    for what, double in (("one tensor under two names", ("tied.weight", parameter)), ("a name twice", (name, other))):
        try:
            type(subject.part)(subject.config, [(name, parameter, info), (*double, info)])
        except Exception as error:
            assert name in str(error), f"refused, but without naming the parameter: {error}"
            continue
        raise AssertionError(f"{what} was taken")


@property_of(
    "optimizer",
    statement="State is kept by name: loaded where the parameters come in another order, it belongs to the same ones.",
    formula="load(s)(p_π(1), …, p_π(n)) = load(s)(p_1, …, p_n)",
    catches="moments by position in a list, which another order of layers gives to others",
    tier="bit",
    examples=6,
)
def state_goes_by_name(part: PartUnderTest, draw: Draw) -> None:
    """One step, then the list turned around."""
    subject = part.bench.subject(part, draw)
    first, second, _ = part.bench.inputs(subject, draw)["gradients"]
    whole = fresh(subject)
    move(whole, first)
    turned = [(name, nn.Parameter(p.detach().clone()), info) for name, p, info in reversed(whole.parameters)]
    other = type(subject.part)(subject.config, turned)
    other.load_state_dict(copy.deepcopy(whole.state_dict()))
    move(whole, second)
    move(other, second[::-1])
    assert same_bits(current(whole), current(other)[::-1]), "in another order, parameters get each other's state"
