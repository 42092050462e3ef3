"""A small causal language model, streams and a job for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corelm.kinds import IGNORE, Batch, Linear, ParameterInfo, Spec, TrainingJob, declare
from corelm.pipeline.checkpoints import StageCheckpoints

VOCABULARY = 7
trainers = pytest.mark.parametrize("trainer", ["plain", "accelerate"])


class TableHead(nn.Module):
    reads = "vocabulary"

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.map = Linear(dim, outputs, role="head")
        self.outputs = outputs

    def forward(self, hidden: Tensor) -> Tensor:
        return self.map(hidden)


class TinyModel(nn.Module):
    """Two layers that mix each token with the mean of those before it in its document; dropout between them."""

    dim = 8

    def __init__(self, seed: int = 0, dropout: float = 0.0, outputs: int = VOCABULARY) -> None:
        super().__init__()
        self.embedding = nn.Module()
        declare(self.embedding, "table", (VOCABULARY, self.dim), ParameterInfo("embedding"))
        self.mix = nn.ModuleList([Linear(2 * self.dim, self.dim) for _ in range(2)])
        declare(self, "gain", (self.dim,), ParameterInfo("norm", constant=1.0))
        self.dropout = nn.Dropout(dropout)
        self.head: Any = TableHead(self.dim, outputs)
        self.register_buffer("seen", torch.zeros(()))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.5, generator=generator)
        self.double()

    @property
    def module(self) -> nn.Module:
        return self

    @property
    def device(self) -> torch.device:
        return self.gain.device

    def hidden(
        self,
        ids: Tensor,
        *,
        valid: Tensor | None = None,
        documents: Tensor | None = None,
        state: Any = None,
        auxiliary: dict[str, list[Tensor]] | None = None,
    ) -> Tensor:
        if self.training:
            self.seen += 1  # a buffer that training moves
        time = ids.shape[1]
        sees = torch.ones(time, time, dtype=torch.bool, device=ids.device).tril().expand(len(ids), -1, -1)
        if documents is not None:
            sees = sees & (documents[:, :, None] == documents[:, None, :])
        if valid is not None:
            sees = sees & valid[:, None, :]
        weights = sees / sees.sum(-1, keepdim=True).clamp(min=1)
        x = self.embedding.table[ids]
        for layer in self.mix:
            x = x + self.dropout(torch.tanh(layer(torch.cat([x, weights.to(x) @ x], dim=-1))))
        return x * self.gain


def rows(count: int, seed: int, lowest: int = 2, highest: int = 9) -> list[list[int]]:
    """Documents of unequal length."""
    draw = random.Random(seed)
    return [[draw.randrange(VOCABULARY) for _ in range(draw.randint(lowest, highest))] for _ in range(count)]


def padded(documents: list[list[int]], first: int = 0, extra: int = 0) -> Batch:
    """A batch of documents, padded on the right."""
    width = max(map(len, documents)) + extra
    ids = torch.zeros(len(documents), width, dtype=torch.long)
    targets, valid = torch.full_like(ids, IGNORE), torch.zeros_like(ids, dtype=torch.bool)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = torch.tensor(document)
        targets[row, : len(document) - 1] = torch.tensor(document[1:])
        valid[row, : len(document)] = True
    return Batch(ids, targets, valid=valid, names=[f"document-{first + row}" for row in range(len(documents))])


class Stream:
    """Micro-batches of ``size`` documents in an order drawn from (seed, epoch); rank r takes every world-th."""

    def __init__(
        self,
        documents: list[list[int]],
        size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ) -> None:
        self.documents, self.size, self.seed, self.limit = documents, size, seed, limit
        self.next, self.world = rank, world
        self.drawn: list[list[str]] = []

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self.limit is not None and self.next >= self.limit:
            raise StopIteration
        each = len(self.documents) // self.size
        order = random.Random(f"{self.seed}/{self.next // each}").sample(
            range(len(self.documents)), len(self.documents)
        )
        start = self.next % each * self.size
        chosen = order[start : start + self.size]
        self.next += self.world
        batch = padded([self.documents[i] for i in chosen])
        batch.names = [f"document-{i}" for i in chosen]
        self.drawn.append(batch.names)
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]


class Parts:
    """Micro-batches that are given, over and over; a step takes all of them."""

    def __init__(self, batches: list[Batch], rank: int = 0, world: int = 1) -> None:
        self.batches, self.next, self.world = batches, rank, world

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.batches[self.next % len(self.batches)]
        self.next += self.world
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]


def streams_of(documents: list[list[int]], size: int = 3, seed: int = 0) -> Callable[[int, int], Stream]:
    """Streams of the same documents, by rank and world."""
    return lambda rank, world: Stream(documents, size, seed, rank, world)


@dataclass
class Recorder:
    """What the job told; asks to stop after a step."""

    stop_after: int | None = None
    steps: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        self.steps.append({"step": step, **figures})

    def note(self, message: str) -> None:
        self.notes.append(message)

    @property
    def stopping(self) -> bool:
        return self.stop_after is not None and bool(self.steps) and self.steps[-1]["step"] >= self.stop_after

    def trace(self, name: str = "loss") -> list[float]:
        return [figures[name] for figures in self.steps]


class NoCheckpoints:
    """Keeps nothing."""

    def due(self, step: int) -> bool:
        return False

    def save(self, step: int, members: Mapping[str, Any]) -> None:
        for member in members.values():
            member.state_dict()

    def restore(self, members: Mapping[str, Any]) -> int:
        return 0


def on_disk(folder: Path) -> StageCheckpoints:
    """The pipeline's own checkpoints, never due by the clock."""
    return StageCheckpoints(folder, seconds=1e9)


def job(
    model: Any,
    streams: Callable[[int, int], Any],
    *,
    steps: int = 4,
    accumulate: int = 1,
    optimizer: Any = None,
    schedule: Any = None,
    objective: str = "completion-only",
    **more: Any,
) -> TrainingJob:
    """A job with small defaults."""
    return TrainingJob(
        model=model,
        streams=lambda processes: streams(processes.rank, processes.world),
        objective=Spec.read("objective", objective).build(),
        optimizer=Spec.read("optimizer", optimizer or {"use": "adamw", "learning_rate": 1e-2}),
        schedule=Spec.read("schedule", schedule or "constant"),
        steps=steps,
        accumulate=accumulate,
        **{"checkpoints": NoCheckpoints(), "watch": Recorder(), **more},
    )


def fit(name: str, job: TrainingJob, **options: Any) -> Any:
    """Run a trainer in float32's place: no autocast, so that float64 stays float64."""
    extra = {"device": "cpu"} if name == "accelerate" else {}
    return Spec.read("trainer", {"use": name, "precision": "fp32", **extra, **options}).build().fit(job)


def values(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors of a model."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether the values of two models are equal, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
