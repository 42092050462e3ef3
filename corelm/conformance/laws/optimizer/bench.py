"""How optimizers are exercised: a few parameters of each role, gradients that are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest
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
        made = fresh(subject)
        for gradients in inputs["gradients"]:
            move(made, gradients)
        return [p.detach().clone() for _, p, _ in made.parameters]


def fresh(subject: Subject, names: list[str] | None = None) -> Any:
    """A new optimizer on copies of the parameters."""
    copies = [
        (name, nn.Parameter(p.detach().clone()), info)
        for name, p, info in subject.arguments[0]
        if names is None or name in names
    ]
    return type(subject.part)(subject.config, copies)


def move(optimizer: Any, gradients: Sequence[Tensor | None], scale: float = 1.0) -> None:
    """One step with these gradients."""
    for (_, parameter, _), gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    optimizer.step(scale)


def current(optimizer: Any) -> list[Tensor]:
    """Copies of the parameters as they are."""
    return [p.detach().clone() for _, p, _ in optimizer.parameters]


def decay_of(subject: Subject) -> float:
    """Weight decay of the config."""
    value = getattr(subject.config, "weight_decay", None)
    if value is None:
        raise NotApplicable("it has no weight decay")
    return float(value)
