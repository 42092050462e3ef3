"""Properties of heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from corelm.conformance.bench import Bench, Subject, close, initialise
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.harness import PlainEmbedding
from corelm.kinds.component import ComponentConfig

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""


class HeadBench(Bench):
    """Hidden states in; an embedding stands by to be tied to."""

    kind = "head"
    module = True

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the model's sizes and an embedding."""
        embedding = PlainEmbedding(ComponentConfig(), context)
        initialise(embedding.double(), draw.seed(), generic=True)
        return (context, embedding)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Hidden states."""
        return {"hidden": draw.normal(2, 5, subject.context.dim)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Read; the table follows what comes in, as in a whole model."""
        result = self.program(subject, inputs)()
        subject.arguments[1].to("cpu", torch.float64)
        return result

    def program(self, subject: Subject, inputs: dict[str, Any]) -> Callable[[], Any]:
        """With the table where the hidden states are."""
        hidden = inputs["hidden"]
        subject.arguments[1].to(hidden)
        return lambda: subject.part(hidden)


@property_of(
    "head",
    statement="Any leading axes will do: picking tokens first or last is the same.",
    formula="head(h)[i] = head(h[i])",
    catches="a reshape that needs (batch, time), statistics over tokens",
)
def any_leading_axes(part: PartUnderTest, draw: Draw) -> None:
    """Flat, boxed, picked."""
    subject = part.bench.subject(part, draw)
    hidden = draw.normal(2, 5, subject.context.dim)
    y = subject.part(hidden)
    assert y.shape == (2, 5, subject.part.outputs), f"{tuple(y.shape)}, outputs says {subject.part.outputs}"
    close(subject.part(hidden.flatten(0, 1)), y.flatten(0, 1), "flattened tokens")
    close(subject.part(hidden[1, 2]), y[1, 2], "one token without leading axes")
    order = draw.permutation(5)
    close(subject.part(hidden[:, order]), y[:, order], "permuted tokens")


@property_of(
    "head",
    statement="reads and outputs agree: vocabulary has one output per id, scalar has one, classes at least two.",
    formula="vocabulary: V, scalar: 1, classes: ≥ 2 outputs",
    catches="a reward with two outputs, logits of another vocabulary",
    tier="io",
    examples=8,
)
def outputs_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Compare with the kind of answer."""
    subject = part.bench.subject(part, draw)
    count, reads = subject.part.outputs, part.cls.reads
    fits = {"vocabulary": count == subject.context.vocab_size, "scalar": count == 1, "classes": count >= 2}
    assert fits.get(reads), f"reads {reads!r} with {count} outputs"


@property_of(
    "head",
    statement="The embedding is no sub-module of the head: its table is saved once.",
    formula="table ∉ parameters(head)",
    catches="a tied table that is saved, counted and updated twice",
    tier="bit",
    examples=8,
)
def embedding_stays_outside(part: PartUnderTest, draw: Draw) -> None:
    """Look for the table among the head's parameters."""
    subject = part.bench.subject(part, draw)
    table = subject.arguments[1].table
    assert all(p is not table for p in subject.part.parameters()), "the embedding's table is a parameter of the head"


@property_of(
    "head",
    statement="A tied head has no matrix of its own and follows the table; an untied one ignores the table.",
    formula="tied ⇔ ∂logits/∂table ≠ 0",
    catches="a copy of the table instead of the table",
    examples=8,
    excuse=lambda part: None if "tied" in part.cls.Config.model_fields else "it can't be tied",
)
def tied_means_tied(part: PartUnderTest, draw: Draw) -> None:
    """Change the table and look."""
    tied = draw.choice("tied", [True, False])
    subject = part.bench.subject(part, draw, tied=tied)
    hidden = draw.normal(1, 3, subject.context.dim)
    before = subject.part(hidden).detach().clone()
    with torch.no_grad():
        subject.arguments[1].table[0] *= -2
    changed = bool((subject.part(hidden) - before).abs().max() > 1e-9)
    assert changed == tied, (
        f"tied={tied}, but a changed table {'changes' if changed else 'does not change'} the output"
    )


@property_of(
    "head",
    statement="Larger scores for one output come from hidden states along it: every output can win.",
    formula="std over tokens of every output > 0",
    catches="outputs that are constant or shared",
    tolerance="10⁻⁹ is far above rounding in float64.",
    examples=5,
)
def every_output_varies(part: PartUnderTest, draw: Draw) -> None:
    """Deviation over many tokens."""
    subject = part.bench.subject(part, draw)
    y = subject.part(draw.normal(64, subject.context.dim))
    still = (y.std(0) < 1e-9).nonzero().flatten().tolist()
    assert not still, f"outputs {still} never change"
