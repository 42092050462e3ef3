"""Properties of initialisations."""

from __future__ import annotations

from typing import Any, get_args

import torch

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.kinds.parameters import ParameterInfo, Role


class InitBench(Bench):
    """Large tensors, so that their deviation can be measured."""

    kind = "init"
    varies = False

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
        """Draw it."""
        tensor = torch.full(inputs["shape"], torch.nan)
        generator = torch.Generator().manual_seed(inputs["seed"])
        subject.part.draw("layers.0.x.weight", inputs["info"], tensor, generator)
        return tensor


@property_of(
    "init",
    statement="Draws have the deviation that is declared, and mean zero.",
    catches="a variance for a deviation, fan-out for fan-in",
    tier="stat",
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
    statement="Every role has a positive, finite deviation.",
    catches="a role that is forgotten, 1/√0",
    tier="io",
    examples=8,
)
def every_role_is_known(part: PartUnderTest, draw: Draw) -> None:
    """All roles, with and without a fan-in."""
    subject = part.bench.subject(part, draw)
    for role in get_args(Role):
        for fan_in in (0, 16):
            value = subject.part.deviation("x", ParameterInfo(role, fan_in=fan_in))
            assert 0 < value < float("inf"), f"role {role} with fan-in {fan_in}: {value}"
