"""How trainers are exercised: on a tiny model, with gradient descent that remembers what it was given."""

from __future__ import annotations

from typing import Any

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.tiny import Descent, Loop, Memory, Silent, own, rows, tiny
from corelm.kinds.batch import Batch
from corelm.kinds.component import Spec
from corelm.kinds.trainer import TrainingJob

IDS = 7
"""Vocabulary of the tiny model."""


class TrainerBench(Bench):
    """In float32 arithmetic on the model's own dtype, without a compiler."""

    kind = "trainer"
    pins = {"precision": "fp32", "compile": False, "device": "cpu", "processes": 1}


def job(model: Any, batches: list[Batch], **changes: Any) -> TrainingJob:
    """Three steps of descent."""
    usual: dict[str, Any] = {
        "model": model,
        "streams": lambda processes: Loop(batches, processes.rank, processes.world),
        "objective": Spec.read("objective", "completion-only").build(),
        "optimizer": own("optimizer", Descent, learning_rate=0.5),
        "schedule": Spec.read("schedule", {"use": "cosine", "warmup": 0}),
        "steps": 3,
        "accumulate": 1,
        "checkpoints": Memory(),
        "watch": Silent(),
        "seed": 5,
    }
    return TrainingJob(**{**usual, **changes})


def small(seed: int, **changes: Any) -> Any:
    """The tiny model."""
    return tiny(seed, vocab=IDS, **changes)


def documents_of(draw: Draw, count: int = 6) -> list[Batch]:
    """Rows of unequal length, on purpose."""
    return rows([draw.integer("length", 2, 9) for _ in range(count)], draw.generator(), IDS)


def built(part: PartUnderTest, draw: Draw, **pins: Any) -> Any:
    """A trainer under a drawn config."""
    subject: Subject = part.bench.subject(part, draw, **pins)
    return subject.part
