"""Properties of residual connections."""

from __future__ import annotations

from typing import Any

import torch

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""


class ConnectionBench(Bench):
    """Enter, read, write, exit."""

    kind = "connection"
    module = True
    activations = False

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the layer's context."""
        return (context,)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """An embedding and a sub-layer's result."""
        return {"x": draw.normal(2, 3, subject.context.dim), "y": draw.normal(2, 3, subject.context.dim)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """The whole way."""
        part = subject.part
        streams = part.enter(inputs["x"])
        return [part.read(streams), part.exit(part.write(streams, inputs["y"]))]


@property_of(
    "connection",
    statement="Writing zero changes nothing.",
    formula="exit(write(s, 0)) = exit(s)",
    catches="a decay or a scale on the stream",
)
def zero_write_is_identity(part: PartUnderTest, draw: Draw) -> None:
    """Write nothing."""
    subject = part.bench.subject(part, draw)
    streams = subject.part.enter(draw.normal(2, 3, subject.context.dim))
    written = subject.part.write(streams, torch.zeros(2, 3, subject.context.dim, dtype=torch.float64))
    close(subject.part.exit(written), subject.part.exit(streams), "after writing zero, and before", 1e-12)


@property_of(
    "connection",
    statement="What is written can be read, in shapes (batch, time, dim).",
    formula="exit(write(s, y)) ≠ exit(s)",
    catches="a result that is lost",
    tolerance="10⁻⁹ is far above rounding in float64.",
)
def writes_are_read(part: PartUnderTest, draw: Draw) -> None:
    """Shapes and influence."""
    subject = part.bench.subject(part, draw)
    x, y = draw.normal(2, 3, subject.context.dim), draw.normal(2, 3, subject.context.dim)
    streams = subject.part.enter(x)
    before, after = subject.part.exit(streams), subject.part.exit(subject.part.write(streams, y))
    assert before.shape == x.shape == subject.part.read(streams).shape, "shapes are not (batch, time, dim)"
    assert float((before - after).detach().abs().max()) > 1e-9, "what was written has no effect"


@property_of(
    "connection",
    statement="keep replaces what is carried on.",
    formula="write(s, y, keep=k) = write(s′, y, keep=k)",
    catches="a keyword that is ignored",
)
def keep_replaces(part: PartUnderTest, draw: Draw) -> None:
    """Carry another tensor on: the old stream has no influence left."""
    subject = part.bench.subject(part, draw)
    x, y, kept = (draw.normal(2, 3, subject.context.dim) for _ in range(3))
    write, enter = subject.part.write, subject.part.enter
    results = [subject.part.exit(write(enter(start), y, keep=kept)) for start in (x, kept)]
    close(results[0], results[1], "with keep given, from two different streams")


@property_of(
    "connection",
    statement="Tokens don't mix.",
    formula="f(PX) = P f(X) for tokens P",
    catches="statistics over tokens",
)
def tokenwise(part: PartUnderTest, draw: Draw) -> None:
    """Permute tokens, which a mean over them survives; leave some out."""
    subject = part.bench.subject(part, draw)
    x, y, order = draw.normal(2, 5, subject.context.dim), draw.normal(2, 5, subject.context.dim), draw.permutation(5)
    whole = part.bench.call(subject, {"x": x, "y": y})
    permuted = part.bench.call(subject, {"x": x[:, order], "y": y[:, order]})
    close(permuted, [leaf[:, order] for leaf in whole], "permuted tokens")
    few = part.bench.call(subject, {"x": x[:, 1:3], "y": y[:, 1:3]})
    close(few, [leaf[:, 1:3] for leaf in whole], "some of the tokens alone and among others")


@property_of(
    "connection",
    statement="A part that takes a name of the field carries on and adds as that name means: single is x + y.",
    formula="enter(x) = x, read(s) = exit(s) = s, write(s, y) = s + y, write(s, y, keep=k) = k + y",
    catches="a branch that is subtracted, which a trained model may well make up for, and no imported one",
    examples=8,
)
def formula_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Written out."""
    if getattr(part.cls, "formula", part.name) != "single":
        raise NotApplicable("its name promises no formula")
    subject = part.bench.subject(part, draw)
    x, y, k = (draw.normal(2, 3, subject.context.dim) for _ in range(3))
    connection = subject.part
    streams = connection.enter(x)
    close([connection.read(streams), connection.exit(streams)], [x, x], "what was entered, and the stream", 1e-12)
    close(connection.exit(connection.write(streams, y)), x + y, "the stream after writing, and x + y", 1e-12)
    close(connection.exit(connection.write(streams, y, keep=k)), k + y, "with keep given, and keep + y", 1e-12)
