"""Trainers over several processes that are wrong in one way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed, nn

from corelm.conformance.bugs.trainer import Loop
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.batch import Batch
from corelm.kinds.trainer import Processes, TrainingJob


class _Gloo(Processes):
    """The processes that a launcher has started."""

    def __init__(self) -> None:
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()

    def gather(self, value: Any) -> list[Any]:
        """By rank."""
        gathered: list[Any] = [None] * self.world
        distributed.all_gather_object(gathered, value)
        return gathered


class _Positions:
    """Streams of all processes as one member of the checkpoint."""

    def __init__(self, stream: Any, processes: Processes) -> None:
        self.stream, self.processes = stream, processes
        self.kept: list[Any] = []

    def __iter__(self) -> _Positions:
        return self

    def __next__(self) -> Batch:
        batch: Batch = next(self.stream)
        return batch

    def collect(self) -> None:
        self.kept = self.processes.gather(self.stream.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"of": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["of"]) != self.processes.world and not getattr(self.stream, "elastic", False):
            raise UserError("another number of processes")
        self.stream.load_state_dict(state["of"][self.processes.rank % len(state["of"])])


@reference
class SharedLoop(Loop):
    """The same loop in several processes: sums of gradients and of terms are added up."""

    distributed = True

    def processes(self) -> Processes:
        """Those of the launcher, where there is one."""
        if "WORLD_SIZE" not in os.environ:
            return Processes()
        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
        return _Gloo()

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """Over all processes."""
        if self.processes().world > 1:
            distributed.all_reduce(value)
        return value

    def shared(self, stream: Any) -> Any:
        """With its position in each process."""
        return _Positions(stream, self.processes())

    def tell(self, job: TrainingJob, step: int, figures: dict[str, float]) -> None:
        """The first reports."""
        if self.processes().rank == 0:
            super().tell(job, step, figures)

    def save(self, job: TrainingJob, step: int, members: dict[str, Any]) -> None:
        """The first writes, the others wait."""
        members["stream"].collect()
        if self.processes().rank == 0:
            super().save(job, step, members)
        self.added(torch.zeros(1))

    def stopping(self, job: TrainingJob) -> bool:
        """Whether any of them was."""
        return bool(self.added(torch.tensor([float(super().stopping(job))])))

    def terms(self, job: TrainingJob, batch: Batch, batches: Sequence[Batch]) -> float:
        """Of all processes."""
        return float(self.added(torch.tensor(super().terms(job, batch, batches))))

    def clip(self, parameters: list[nn.Parameter]) -> None:
        """The sum over all processes."""
        for p in parameters:
            if p.grad is not None:
                self.added(p.grad)
        super().clip(parameters)


@plant("processes_are_one", "the mean of each process's mean")
class MeanOfRanks(SharedLoop):
    """Processes with short rows count more."""

    def terms(self, job: TrainingJob, batch: Batch, batches: Sequence[Batch]) -> float:
        return Loop.terms(self, job, batch, batches) * self.processes().world


@plant("processes_are_one", "every process writes the checkpoint")
class AllOfThemSave(SharedLoop):
    """Two writers of one file."""

    def save(self, job: TrainingJob, step: int, members: dict[str, Any]) -> None:
        members["stream"].collect()
        Loop.save(self, job, step, members)
