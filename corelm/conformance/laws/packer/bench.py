"""How packers are exercised: documents of unequal length, every token of which is another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.kinds.batch import Batch
from corelm.kinds.packer import Tokens

END = 0


class PackerBench(Bench):
    """Documents of unequal length; every token is unique, so that nothing can hide."""

    kind = "packer"

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Documents and the shape of a batch."""
        return {
            "store": documents(draw),
            "batch": draw.choice("batch", [2, 1, 3]),
            "time": draw.choice("time", [8, 5, 24]),
            "seed": draw.integer("seed", 0, 3),
        }

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """One epoch."""
        return [[b.ids, b.targets] for b in epoch(subject.part, inputs)]


def documents(draw: Draw) -> list[Tokens]:
    """Up to nine documents of lengths 1, 2, 5, 20 and none; ids count on, 0 is the end of text."""
    lengths = [draw.choice("length", [5, 2, 1, 20, 0]) for _ in range(draw.integer("documents", 1, 9))]
    if not sum(lengths):
        lengths.append(3)
    start, store = 1 + draw.seed() % 5, []
    for number, length in enumerate(lengths):
        store.append(Tokens(np.arange(start, start + length), name=f"document {number}"))
        start += length
    return store


def stream(packer: Any, inputs: dict[str, Any], **more: Any) -> Any:
    """One epoch, unless told otherwise."""
    given = {
        "batch": inputs["batch"],
        "time": inputs["time"],
        "seed": inputs["seed"],
        "end_of_text": END,
        "epochs": 1,
    }
    return packer.stream(inputs["store"], **{**given, **more})


def epoch(packer: Any, inputs: dict[str, Any], **more: Any) -> list[Batch]:
    """All batches."""
    return list(stream(packer, inputs, **more))


def valid(batch: Batch) -> torch.Tensor:
    """Which entries are no padding."""
    return torch.ones_like(batch.ids, dtype=torch.bool) if batch.valid is None else batch.valid


def ready(part: PartUnderTest, draw: Draw) -> tuple[Any, dict[str, Any]]:
    """A packer and something to pack."""
    subject = part.bench.subject(part, draw)
    return subject.part, part.bench.inputs(subject, draw)


def fitting(part: PartUnderTest, inputs: dict[str, Any]) -> None:
    """Documents that fit, for parts that cut longer ones."""
    if part.cls.truncates:
        short = [d for d in inputs["store"] if len(d.ids) < inputs["time"]]
        inputs["store"] = [*short, Tokens(np.array([901, 902]), name="last")]
