"""Properties of activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu-tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick-gelu": lambda x: x / (1 + (-1.702 * x).exp()),
    "relu": lambda x: torch.where(x > 0, x, 0 * x),
    "relu-squared": lambda x: torch.where(x > 0, x * x, 0 * x),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "identity": lambda x: x,
    "tanh": lambda x: 2 / (1 + (-2 * x).exp()) - 1,
}
"""What the names of the field mean; a part that takes one of them means this."""

PAIRS: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "clamped-swiglu": lambda gate, up, config: (
        (g := torch.where(gate > config.limit, config.limit, gate))
        / (1 + (-config.slope * g).exp())
        * (1 + torch.where(up.abs() > config.limit, up.sign() * config.limit, up))
    ),
}
"""Gated pairs that are more than the function of the gate times the value, by the same names and the config."""


class ActivationBench(Bench):
    """Elementwise."""

    kind = "activation"
    module = True

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Numbers around zero."""
        return {"x": draw.normal(2, 3, 4, scale=draw.choice("magnitude", [1.0, 5.0, 0.1]))}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """The function and the gated pair."""
        x = inputs["x"]
        return [subject.part(x), subject.part.combine(x, x.flip(-1))]


def _f(part: PartUnderTest, draw: Draw) -> Any:
    return part.bench.subject(part, draw).part


@property_of(
    "activation",
    statement="A part that takes a name of the field computes the function of that name.",
    formula="f = silu, gelu, relu … as its name says",
    catches="quick GELU for GELU, GELU for SiLU: alike to the eye, not to a checkpoint",
    tolerance="One formula in two ways: some units in float64's last place.",
    examples=8,
)
def formula_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Written out."""
    name = getattr(part.cls, "formula", part.name)
    if name not in FORMULAS:
        raise NotApplicable(f"{name!r} is no name of the field that the kit knows")
    x = draw.normal(64, scale=draw.choice("magnitude", [1.0, 4.0]))
    close(_f(part, draw)(x), FORMULAS[name](x), f"f(x) and the formula of {name}", 1e-12)


@property_of(
    "activation",
    statement="f(0) = 0 unless the docstring says otherwise.",
    formula="f(0) = 0",
    catches="a shifted function",
    tier="bit",
    examples=3,
)
def zero_at_zero(part: PartUnderTest, draw: Draw) -> None:
    """At zero."""
    value = float(_f(part, draw)(torch.zeros(1, dtype=torch.float64)))
    if value:
        assert "zero" in (part.cls.__doc__ or ""), f"f(0) = {value}, and the docstring doesn't say so"


@property_of(
    "activation",
    statement="Every element is treated alike and on its own.",
    formula="f(Px) = P f(x)",
    catches="a softmax or a maximum over an axis",
    tier="f64",
    tolerance="Vectorised loops and their tails may round apart by one unit.",
    examples=10,
)
def elementwise(part: PartUnderTest, draw: Draw) -> None:
    """Permute all elements."""
    f, x, order = _f(part, draw), draw.normal(24), draw.permutation(24)
    close(f(x[order]), f(x)[order], "permuted elements", 1e-14)  # vector and tail loops may round apart
    close(f(x.view(2, 3, 4)).flatten(), f(x), "as a box and as a line", 1e-14)


@property_of(
    "activation",
    statement="A gated pair is the function of the gate times the value; under a name that says more, what it says.",
    formula="combine(g, u) = f(g) · u, or what the name says",
    catches="a shift or a clamp that is forgotten, gate and value swapped",
    tolerance="One formula in two ways: some units in float64's last place.",
    examples=10,
)
def pair_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Written out."""
    subject = part.bench.subject(part, draw)
    gate, up = (draw.normal(64, scale=draw.choice("magnitude", [1.0, 10.0])) for _ in range(2))
    name = getattr(part.cls, "formula", part.name)
    if name not in PAIRS and name not in FORMULAS:
        raise NotApplicable(f"{name!r} is no name of the field that the kit knows")
    expected = PAIRS[name](gate, up, subject.config) if name in PAIRS else FORMULAS[name](gate) * up
    close(subject.part.combine(gate, up), expected, f"the pair and the formula of {name}", 1e-12)


@property_of(
    "activation",
    statement="The gated pair is linear in the value unless the part says that it clamps.",
    formula="combine(g, 3u) = 3 combine(g, u)",
    catches="gate and value swapped, a sum in place of the product",
    examples=10,
)
def linear_in_the_value(part: PartUnderTest, draw: Draw) -> None:
    """Three times the value."""
    if "clamp" in (part.cls.__doc__ or "").lower():
        raise NotApplicable("it clamps the value")
    f, gate, up = _f(part, draw), draw.normal(12), draw.normal(12)
    close(f.combine(gate, 3 * up), 3 * f.combine(gate, up), "combine(gate, 3·up) and 3·combine(gate, up)")


@property_of(
    "activation",
    statement="Large inputs of either sign give finite values and gradients.",
    formula="|f(±10⁴)| < ∞, |f′(±10⁴)| < ∞",
    catches="exp() that overflows",
    examples=3,
)
def finite_far_out(part: PartUnderTest, draw: Draw) -> None:
    """At ±10⁴ in float32."""
    x = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    y = _f(part, draw)(x)
    y.sum().backward()
    assert x.grad is not None and y.isfinite().all() and x.grad.isfinite().all(), f"{y.tolist()}, {x.grad}"


@property_of(
    "activation",
    statement="The derivative is that of the function.",
    formula="f′(x) = (f(x + h) − f(x − h)) / 2h",
    catches="a wrong hand-written backward pass, a detached gate",
    tolerance="With h = 10⁻⁶ the differences lose ten digits of sixteen; kinks are kept away from.",
    examples=6,
)
def derivative(part: PartUnderTest, draw: Draw) -> None:
    """Central differences, away from kinks."""
    f = _f(part, draw)
    x = draw.normal(16)
    x = torch.where(x.abs() < 0.05, torch.full_like(x, 0.3), x).requires_grad_()
    (gradient,) = torch.autograd.grad(f(x).sum(), x)
    step = 1e-6
    with torch.no_grad():
        expected: Tensor = (f(x + step) - f(x - step)) / (2 * step)
    close(gradient, expected, "the gradient and central differences", 1e-6)
