"""Properties of initialisations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.parameters import ParameterInfo, Role

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""


class InitBench(Bench):
    """Large tensors, so that their deviation can be measured."""

    kind = "init"
    varies = False
    observed = True

    def context(self, draw: Draw) -> Any:
        """Models of few layers, of many and of none."""
        return replace(super().context(draw), depth=draw.choice("depth", [2, 1, 12, 0]))

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the model's sizes."""
        return (context,)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A parameter."""
        roles: list[Role] = ["matrix", "embedding", "vector", "router", "head"]
        role = draw.choice("role", roles)
        fan_in = draw.choice("fan_in", [16, 64]) if role in ("matrix", "router", "head") else 0
        info = ParameterInfo(
            role, fan_in=fan_in, residual=role == "matrix" and draw.choice("residual", [False, True])
        )
        return {"info": info, "shape": (96, fan_in or 64), "seed": draw.seed()}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Draw it: a parameter, which asks for gradients and is to have none of its own drawing."""
        tensor = nn.Parameter(torch.full(inputs["shape"], torch.nan))
        generator = torch.Generator().manual_seed(inputs["seed"])
        subject.part.draw("layers.0.x.weight", inputs["info"], tensor, generator)
        assert tensor.requires_grad and tensor.is_leaf, "after its draw the parameter is no leaf that can be trained"
        return tensor.detach()


@property_of(
    "init",
    statement="Draws have the deviation that is declared, and mean zero.",
    formula="std(W) = deviation, mean(W) = 0",
    catches="a variance for a deviation, fan-out for fan-in",
    tier="stat",
    tolerance="6000 draws deviate by 1 %; six times that come once in 10⁸.",
    examples=20,
)
def deviation_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """6000 draws: 5 % is five standard errors."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    tensor, wanted = part.bench.call(subject, inputs), subject.part.deviation("layers.0.x.weight", inputs["info"])
    found = float(tensor.std())
    assert abs(found - wanted) <= 0.06 * wanted, f"deviation {found:.4g}, declared {wanted:.4g}"
    assert abs(float(tensor.mean())) <= 6 * wanted / tensor.numel() ** 0.5, f"mean {float(tensor.mean()):.4g}"


@property_of(
    "init",
    statement="Every entry is drawn, from the given generator alone: other seed, other values.",
    formula="W(seed) = W(seed) ≠ W(seed + 1)",
    catches="the global generator, entries left as they were",
    tier="bit",
    examples=10,
)
def generator_decides(part: PartUnderTest, draw: Draw) -> None:
    """Two seeds, the first one twice."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    first, again = part.bench.call(subject, inputs), part.bench.call(subject, inputs)
    assert first.isfinite().all(), "some entries were never drawn"
    assert torch.equal(first, again), "the same generator gave other values"
    other = part.bench.call(subject, {**inputs, "seed": inputs["seed"] + 1})
    assert not torch.equal(first, other), "another generator gave the same values"


@property_of(
    "init",
    statement="The deviation depends on role and sizes, not on the layer's number: adding a layer changes no other.",
    formula="deviation(layer 0) = deviation(layer 1)",
    catches="values that depend on how many parameters came before",
    tier="bit",
    examples=8,
)
def layers_are_alike(part: PartUnderTest, draw: Draw) -> None:
    """Same role, other name."""
    subject = part.bench.subject(part, draw)
    info = part.bench.inputs(subject, draw)["info"]
    values = [subject.part.deviation(f"layers.{n}.attention.query.weight", info) for n in (0, 1)]
    assert values[0] == values[1], f"layer 0 has deviation {values[0]}, layer 1 {values[1]}"


@property_of(
    "init",
    statement="Every role has a positive, finite deviation, in models without layers, too.",
    formula="0 < deviation(role) < ∞",
    catches="a role that is forgotten, 1/√0",
    tier="io",
    examples=45,
)
def every_role_is_known(part: PartUnderTest, draw: Draw) -> None:
    """All roles, with and without a fan-in, added to the residual stream and not."""
    subject = part.bench.subject(part, draw)
    for role, fan_in, residual in itertools.product(get_args(Role), (0, 16), (False, True)):
        value = subject.part.deviation("x", ParameterInfo(role, fan_in=fan_in, residual=residual))
        assert 0 < value < float("inf"), f"role {role} with fan-in {fan_in}: {value}"


FORMULAS: dict[str, Callable[[Any, int, ParameterInfo], float]] = {
    "normal": lambda config, depth, info: (
        config.deviation / math.sqrt(2 * depth if config.depth_scaled and info.residual and depth else 1)
    ),
    "fan-in": lambda config, depth, info: (
        config.gain / math.sqrt(info.fan_in) / math.sqrt(2 * depth if info.residual and depth else 1)
        if info.fan_in
        else config.vectors
    ),
}
"""What the names of the field mean, in a model of some depth."""


@property_of(
    "init",
    statement="A part that takes a name of the field has the deviation that name means.",
    formula="normal: σ, fan-in: g/√n; what is added to the residual stream divided by √(2 · layers)",
    catches="fan-out for fan-in, a depth that is counted twice or not at all",
    tolerance="One formula in two ways: a rounding or two of float64.",
    examples=15,
)
def formula_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Written out, for all sorts of parameters."""
    name = getattr(part.cls, "formula", part.name)
    if name not in FORMULAS:
        raise NotApplicable(f"{name!r} is no name of the field that the kit knows")
    subject = part.bench.subject(part, draw)
    for role, fan_in, residual in itertools.product(get_args(Role), (0, 16, 64), (False, True)):
        info = ParameterInfo(role, fan_in=fan_in, residual=residual)
        found = subject.part.deviation("layers.0.x.weight", info)
        wanted = FORMULAS[name](subject.config, subject.context.depth, info)
        assert abs(found - wanted) <= 1e-12 * wanted, (
            f"deviation {found:.6g} of {info}, that of {name} is {wanted:.6g}"
        )


@property_of(
    "init",
    statement="Entries are drawn each on its own: neighbours in a row or a column have nothing to do with each other.",
    formula="|corr(W_ij, W_i,j+1)| and |corr(W_ij, W_i+1,j)| ≤ 6/√n",
    catches="one row that is drawn and repeated, a draw per column, every value drawn twice",
    tier="stat",
    tolerance="A correlation of n independent pairs deviates by 1/√n; six of these come once in 5·10⁸ draws.",
    examples=6,
)
def entries_are_independent(part: PartUnderTest, draw: Draw) -> None:
    """Correlations along both axes."""
    subject = part.bench.subject(part, draw)
    tensor = part.bench.call(subject, part.bench.inputs(subject, draw)).double()
    for axis, name in ((1, "row"), (0, "column")):
        size = tensor.shape[axis] - 1
        a, b = tensor.narrow(axis, 0, size).flatten(), tensor.narrow(axis, 1, size).flatten()
        found = float(torch.corrcoef(torch.stack((a, b)))[0, 1])
        assert abs(found) <= 6 / len(a) ** 0.5, f"neighbours in a {name} correlate by {found:.3f}"
