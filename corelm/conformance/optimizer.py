"""Properties of optimizers."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corelm.conformance.bench import Bench, Subject, close, leaves, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.parameters import ParameterInfo, Role

DECAYED: tuple[Role, ...] = ("matrix", "embedding", "head")


def parameters(draw: Draw) -> list[tuple[str, nn.Parameter, ParameterInfo]]:
    """One parameter of each role, small."""
    shapes: dict[Role, tuple[int, ...]] = {
        "matrix": (4, 6),
        "embedding": (5, 4),
        "head": (3, 4),
        "vector": (4,),
        "norm": (6,),
        "bias": (1,),
        "router": (3, 4),
    }
    return [
        (f"{role}.weight", nn.Parameter(draw.normal(*shape)), ParameterInfo(role, fan_in=shape[-1]))
        for role, shape in shapes.items()
    ]


class OptimizerBench(Bench):
    """A few parameters, gradients given."""

    kind = "optimizer"
    pins = {"learning_rate": 0.05}

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with named parameters."""
        return (parameters(draw),)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Three steps of gradients."""
        return {"gradients": [[draw.normal(*p.shape) for _, p, _ in subject.arguments[0]] for _ in range(3)]}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Step from the start, and put the parameters back."""
        made = _fresh(subject)
        for gradients in inputs["gradients"]:
            _step(made, gradients)
        return [p.detach().clone() for _, p, _ in made.parameters]


def _fresh(subject: Subject, names: list[str] | None = None) -> Any:
    """A new optimizer on copies of the parameters."""
    copies = [
        (name, nn.Parameter(p.detach().clone()), info)
        for name, p, info in subject.arguments[0]
        if names is None or name in names
    ]
    return type(subject.part)(subject.config, copies)


def _step(optimizer: Any, gradients: Sequence[Tensor | None], scale: float = 1.0) -> None:
    for (_, parameter, _), gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    optimizer.step(scale)


def _values(optimizer: Any) -> list[Tensor]:
    return [p.detach().clone() for _, p, _ in optimizer.parameters]


def _decay(subject: Subject) -> float:
    """Weight decay of the config."""
    value = getattr(subject.config, "weight_decay", None)
    if value is None:
        raise NotApplicable("it has no weight decay")
    return float(value)


@property_of(
    "optimizer",
    statement="A parameter whose gradient is None stays as it is, to the bit, and so does its state.",
    catches="None taken for zero, so that decay and moments go on",
    tier="bit",
    examples=12,
)
def none_means_untouched(part: PartUnderTest, draw: Draw) -> None:
    """Leave every second gradient out after a first step."""
    subject = part.bench.subject(part, draw)
    optimizer = _fresh(subject)
    _step(optimizer, part.bench.inputs(subject, draw)["gradients"][0])
    before, state = _values(optimizer), copy.deepcopy(optimizer.state_dict())
    gradients: list[Tensor | None] = [torch.ones_like(p) if i % 2 else None for i, p in enumerate(before)]
    _step(optimizer, gradients)
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
    catches="decay without the learning rate, decay of norms and biases",
    examples=12,
)
def decay_is_decoupled(part: PartUnderTest, draw: Draw) -> None:
    """p ← p (1 − lr · wd)."""
    subject = part.bench.subject(part, draw, weight_decay=draw.choice("weight_decay", [0.0, 0.1, 0.5]))
    decay, scale = _decay(subject), draw.choice("scale", [1.0, 0.5])
    optimizer = _fresh(subject)
    before = _values(optimizer)
    _step(optimizer, [torch.zeros_like(p) for p in before], scale)
    roles = getattr(subject.config, "decayed", DECAYED)
    for (name, after, info), old in zip(optimizer.parameters, before, strict=True):
        factor = 1 - optimizer.learning_rate * scale * decay if info.role in roles else 1.0
        close(after, old * factor, f"{name} after a step of zero gradient")


@property_of(
    "optimizer",
    statement="What decay adds to a step is −lr · decay · p, whatever the gradient.",
    catches="decay added to the gradient (L2), where moments swallow it",
    examples=12,
)
def decay_ignores_gradients(part: PartUnderTest, draw: Draw) -> None:
    """With and without decay, gradients from tiny to large."""
    without = part.bench.subject(part, draw, weight_decay=0.0)
    _decay(without)
    strong = type(without.config).model_validate({**without.config.model_dump(), "weight_decay": 0.3})
    size = draw.choice("gradients ×", [1.0, 1e-3, 1e2])
    gradients = [draw.normal(*p.shape, scale=size) for _, p, _ in without.arguments[0]]
    plain, start = _fresh(without), _values(_fresh(without))
    decayed = type(without.part)(strong, _fresh(without).parameters)
    _step(plain, gradients)
    _step(decayed, gradients)
    roles = getattr(without.config, "decayed", DECAYED)
    for (name, a, info), (_, b, _), p in zip(plain.parameters, decayed.parameters, start, strict=True):
        expected = -plain.learning_rate * 0.3 * p if info.role in roles else torch.zeros_like(p)
        close(b - a, expected, f"what decay adds to the step of {name}", 1e-9)


@property_of(
    "optimizer",
    statement="From ten of its own first steps away, with the rate falling to zero, it comes within half a step of the "
    "bottom of a quadratic bowl.",
    catches="ascent, a step that forgets the sign, steps that die out",
    tier="stat",
    examples=4,
)
def finds_the_bottom(part: PartUnderTest, draw: Draw) -> None:
    """‖p − a‖² in 400 steps, which is a way of 200 first steps.

    What a step moves follows from rate, shape and role, so the distance is measured in steps of each parameter. A
    direction of unit singular values covers a gradient of rank one slowest: at most √rank = 2 times slower here.
    """
    subject = part.bench.subject(part, draw, weight_decay=0.0)
    start = _values(_fresh(subject))
    signs = [torch.sign(draw.normal(*p.shape)) for p in start]
    probe = _fresh(subject)
    _step(probe, [-sign for sign in signs])
    strides = [float((p - old).abs().mean()) for p, old in zip(_values(probe), start, strict=True)]
    optimizer, steps = _fresh(subject), 400
    bottoms = [p + 10 * stride * sign for p, stride, sign in zip(start, strides, signs, strict=True)]
    for step in range(steps):
        pulls = [p.detach() - a for (_, p, _), a in zip(optimizer.parameters, bottoms, strict=True)]
        _step(optimizer, pulls, 1 - step / steps)
    for (name, p, _), a, stride in zip(optimizer.parameters, bottoms, strides, strict=True):
        assert stride > 0, f"{name} did not move in the first step"
        distance = float((p - a).detach().abs().mean()) / stride
        assert distance < 0.5, f"{name} is {distance:.3f} first steps from the bottom on average, it began at 10"


@property_of(
    "optimizer",
    statement="Negated gradients give the negated path.",
    catches="an absolute value, a bias of the step",
    examples=8,
)
def odd_in_gradients(part: PartUnderTest, draw: Draw) -> None:
    """Mirror."""
    subject = part.bench.subject(part, draw, weight_decay=0.0)
    gradients = part.bench.inputs(subject, draw)["gradients"]
    up, down = _fresh(subject), _fresh(subject)
    start = _values(up)
    for step in gradients:
        _step(up, step)
        _step(down, [-g for g in step])
    moved = [a - s for a, s in zip(_values(up), start, strict=True)]
    close([s - b for b, s in zip(_values(down), start, strict=True)], moved, "the mirrored path", 1e-9)


@property_of(
    "optimizer",
    statement="Parameters are updated as if each were alone; missing gradients are simply no steps.",
    catches="one step counter for all, a norm over all parameters",
    examples=12,
)
def parameters_are_separate(part: PartUnderTest, draw: Draw) -> None:
    """Together, one of them now and then; and apart."""
    subject = part.bench.subject(part, draw)
    gradients = part.bench.inputs(subject, draw)["gradients"]
    together = _fresh(subject)
    late = draw.integer("late", 0, len(together.parameters) - 1)
    for step, values in enumerate(gradients):
        _step(together, [None if i == late and step == 0 else g for i, g in enumerate(values)])
    for i, (name, p, _) in enumerate(together.parameters):
        alone = _fresh(subject, [name])
        for step, values in enumerate(gradients):
            if not (i == late and step == 0):
                _step(alone, [values[i]])
        close(p, alone.parameters[0][1], f"{name} among others and alone", 1e-12)


@property_of(
    "optimizer",
    statement="State saved after any step and loaded into a fresh optimizer goes on to the same bits; it is never shared.",
    catches="a step counter that isn't saved, moments that alias the loaded dict",
    tier="bit",
    examples=12,
)
def state_resumes(part: PartUnderTest, draw: Draw) -> None:
    """k steps, save, the rest."""
    subject = part.bench.subject(part, draw)
    gradients = part.bench.inputs(subject, draw)["gradients"]
    k = draw.integer("k", 0, 2)
    whole = _fresh(subject)
    for values in gradients[:k]:
        _step(whole, values)
    saved = copy.deepcopy(whole.state_dict())
    _plain(saved)
    resumed = _fresh(subject)
    for (_, new, _), (_, old, _) in zip(resumed.parameters, whole.parameters, strict=True):
        new.data.copy_(old.data)
    resumed.load_state_dict(saved)
    kept = copy.deepcopy(saved)
    for values in gradients[k:]:
        _step(whole, values)
        _step(resumed, values)
    assert same_bits(_values(whole), _values(resumed)), f"resumed after {k} steps, it ends elsewhere"
    assert same_bits(saved, kept), "the loaded state was changed by later steps: it is shared, not copied"


def _plain(state: Any) -> None:
    """Tensors and plain data only."""
    for leaf in leaves(state):
        if not isinstance(leaf, Tensor):
            json.dumps(leaf)


@property_of(
    "optimizer",
    statement="The scale multiplies the learning rate: at zero nothing moves, to the bit.",
    catches="decay without the schedule, a frozen parameter that drifts",
    tier="bit",
    examples=8,
)
def zero_rate_is_still(part: PartUnderTest, draw: Draw) -> None:
    """Scale 0."""
    subject = part.bench.subject(part, draw)
    optimizer = _fresh(subject)
    before = _values(optimizer)
    for gradients in part.bench.inputs(subject, draw)["gradients"]:
        _step(optimizer, gradients, 0.0)
    assert same_bits(before, _values(optimizer)), "parameters moved at learning rate zero"


@property_of(
    "optimizer",
    statement="A parameter that is listed twice is refused.",
    catches="two updates per step for tied tensors",
    tier="io",
    examples=2,
)
def doubles_are_refused(part: PartUnderTest, draw: Draw) -> None:
    """Tied under two names."""
    subject = part.bench.subject(part, draw)
    name, parameter, info = subject.arguments[0][0]
    try:
        type(subject.part)(subject.config, [(name, parameter, info), ("tied.weight", parameter, info)])
    except Exception as error:
        assert name in str(error), f"refused, but without naming the parameter: {error}"
        return
    raise AssertionError("one tensor under two names was taken")


@property_of(
    "optimizer",
    statement="AdamW's first step is p(1 − lr·wd) − lr · g/(|g| + eps).",
    catches="a missing bias correction, eps inside the root (pytorch#22628), the betas swapped",
    examples=20,
    excuse=lambda part: None if getattr(part.cls, "law", part.name) == "adamw" else "it isn't AdamW",
)
def first_step_of_adamw(part: PartUnderTest, draw: Draw) -> None:
    """Closed form, eps large enough to show; then a second step, where the betas show."""
    eps = draw.choice("eps", [1e-8, 1e-3, 1e-1])
    subject = part.bench.subject(part, draw, eps=eps)
    optimizer, decay = _fresh(subject), _decay(subject)
    roles, rate = getattr(subject.config, "decayed", DECAYED), optimizer.learning_rate
    beta1, beta2 = subject.config.betas
    start, (first, second, _) = _values(optimizer), part.bench.inputs(subject, draw)["gradients"]
    _step(optimizer, first)
    for (name, p, info), old, g in zip(optimizer.parameters, start, first, strict=True):
        kept = old * (1 - rate * decay) if info.role in roles else old
        close(p, kept - rate * g / (g.abs() + eps), f"{name} after the first step", 1e-9)
    middle = _values(optimizer)
    _step(optimizer, second)
    for (name, p, info), old, g, h in zip(optimizer.parameters, middle, first, second, strict=True):
        kept = old * (1 - rate * decay) if info.role in roles else old
        mean = (beta1 * (1 - beta1) * g + (1 - beta1) * h) / (1 - beta1**2)
        square = (beta2 * (1 - beta2) * g * g + (1 - beta2) * h * h) / (1 - beta2**2)
        close(p, kept - rate * mean / (square.sqrt() + eps), f"{name} after the second step", 1e-9)


def _direction(part: PartUnderTest, draw: Draw, gradient: Tensor) -> Tensor:
    subject = part.bench.subject(part, draw, weight_decay=0.0, momentum=0.0, nesterov=False)
    parameter = nn.Parameter(torch.zeros_like(gradient))
    optimizer = type(subject.part)(
        subject.config, [("m.weight", parameter, ParameterInfo("matrix", gradient.shape[1]))]
    )
    _step(optimizer, [gradient])
    return -parameter.detach() / parameter.detach().norm() * math.sqrt(min(gradient.shape))


def _not_muon(part: PartUnderTest) -> str | None:
    return None if getattr(part.cls, "law", part.name) == "muon" else "it doesn't orthogonalise"


@property_of(
    "optimizer",
    statement="Muon's direction has singular values near each other, whatever those of the gradient between 0.1 and 1.",
    catches="too few iterations, no scaling beforehand",
    examples=8,
    excuse=_not_muon,
)
def orthogonalises(part: PartUnderTest, draw: Draw) -> None:
    """Singular values of the direction, on average one."""
    u, v = (torch.linalg.qr(draw.normal(n, n)).Q for n in (4, 6))
    values = torch.tensor([1.0, 0.7, 0.3, 0.1], dtype=torch.float64) * draw.choice("scale", [1.0, 1e-3, 1e3])
    direction = _direction(part, draw, u @ torch.diag(values) @ v[:4])
    found = torch.linalg.svdvals(direction)
    assert float(found.min()) > 0.45 and float(found.max()) < 1.6, f"singular values {found.tolist()}"


@property_of(
    "optimizer",
    statement="Muon's direction turns with the gradient: dir(U G V) = U dir(G) V, and dir(Gᵀ) = dir(G)ᵀ; it descends.",
    catches="an elementwise or per-column normalisation, a transpose that is forgotten",
    examples=8,
    excuse=_not_muon,
)
def turns_with_the_gradient(part: PartUnderTest, draw: Draw) -> None:
    """Rotate, transpose, project on the gradient."""
    gradient = draw.normal(4, 6)
    u, v = torch.linalg.qr(draw.normal(4, 4)).Q, torch.linalg.qr(draw.normal(6, 6)).Q
    direction = _direction(part, draw, gradient)
    # Iterations may run in bfloat16, so that only a few digits are equal.
    close(_direction(part, draw, u @ gradient @ v), u @ direction @ v, "dir(UGV) and U dir(G) V", 0.05)
    close(_direction(part, draw, gradient.T.contiguous()), direction.T, "dir(Gᵀ) and dir(G)ᵀ", 0.05)
    assert float((direction * gradient).sum()) > 0, "the direction is not one of descent"
