"""Trainers that are wrong in one way."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import distributed, nn

from corelm.conformance.planted import plant, reference
from corelm.errors import Interrupted, UserError
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import ComponentConfig
from corelm.kinds.parameters import declared
from corelm.kinds.trainer import Processes, Trainer, TrainingJob, TrainingResult


@reference
class Loop(Trainer):
    """The plainest loop that keeps the contract."""

    class Config(ComponentConfig):
        """Options."""

        clip: float | None = Field(1.0, gt=0, description="Norm.")

    def fit(self, job: TrainingJob) -> TrainingResult:
        """Train."""
        module = job.model.module
        modes, wanted = [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]
        for name, p in module.named_parameters():
            p.requires_grad_(p.requires_grad and (job.trainable is None or job.trainable(name)))
        self.enter(module)
        try:
            with torch.random.fork_rng([]):
                return self.loop(job, [entry for entry in declared(module) if entry[1].requires_grad])
        finally:
            self.leave(module, modes, wanted)

    def enter(self, module: nn.Module) -> None:
        """Training mode."""
        module.train()

    def leave(self, module: nn.Module, modes: list[bool], wanted: list[bool]) -> None:
        """As before."""
        for m, mode in zip(module.modules(), modes, strict=True):
            m.training = mode
        for p, was in zip(module.parameters(), wanted, strict=True):
            p.requires_grad_(was)
            p.grad = None

    def loop(self, job: TrainingJob, trained: Any) -> TrainingResult:
        """Steps."""
        optimizer, schedule, stream = (
            self.optimizer(job, trained),
            job.schedule.build(),
            job.streams(self.processes()),
        )
        members = self.members({"model": _Weights(job.model.module), "optimizer": optimizer, "stream": stream})
        step = job.checkpoints.restore(members)
        total = 0.0
        while step < job.steps:
            batches = list(itertools.islice(stream, job.accumulate // self.processes().world))
            total = self.gradients(job, batches, step, optimizer)
            if not math.isfinite(total):
                self.broken(step, batches)
            factor = self.factor(schedule, step, job)
            optimizer.step(factor)
            self.clear(optimizer)
            step += 1
            job.watch.step(step, job.steps, {"loss": total, "learning_rate": optimizer.learning_rate * factor})
            if self.due(job, step):
                job.checkpoints.save(step, members)
            if job.watch.stopping and step < job.steps:
                job.checkpoints.save(step, members)
                raise Interrupted(f"stopped after step {step}")
        self.finish(job, members)
        return TrainingResult(step, {"loss": total})

    def due(self, job: TrainingJob, step: int) -> bool:
        """Whether it is time to save."""
        return job.checkpoints.due(step)

    def processes(self) -> Processes:
        """This one is alone."""
        return Processes()

    def optimizer(self, job: TrainingJob, trained: Any) -> Any:
        """Of all that is trained."""
        return job.optimizer.build(trained)

    def members(self, members: dict[str, Any]) -> dict[str, Any]:
        """Of a checkpoint."""
        return members

    def finish(self, job: TrainingJob, members: dict[str, Any]) -> None:
        """Save at the end."""
        job.checkpoints.save(job.steps, members)

    def factor(self, schedule: Any, step: int, job: TrainingJob) -> float:
        """Of the rate."""
        return float(schedule.factor(step, job.steps))

    def clear(self, optimizer: Any) -> None:
        """Forget gradients."""
        optimizer.zero_grad()

    def gradients(self, job: TrainingJob, batches: Sequence[Batch], step: int, optimizer: Any) -> float:
        """Of the mean over all micro-batches, clipped."""
        total = 0.0
        for number, batch in enumerate(batches):
            self.seed(job, step, number)
            terms = job.objective.evaluate(job.model, batch)
            share = terms.total / self.terms(job, batch, batches)
            share.backward()
            total += float(share.detach())
        self.clip([p for _, p, _ in optimizer.parameters])
        return total

    def seed(self, job: TrainingJob, step: int, number: int) -> None:
        """Chance of a micro-batch."""
        torch.manual_seed(job.seed * 1009 + step * 31 + number)

    def terms(self, job: TrainingJob, batch: Batch, batches: Sequence[Batch]) -> float:
        """What a micro-batch's sum is divided by."""
        return sum(job.objective.count(each) for each in batches)

    def clip(self, parameters: list[nn.Parameter]) -> None:
        """Once, all together."""
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)

    def broken(self, step: int, batches: Sequence[Batch]) -> None:
        """Refuse."""
        raise UserError(f"step {step + 1}: the loss is not finite in {batches[0].names}")


class _Gloo(Processes):
    """The processes that a launcher has started."""

    def __init__(self) -> None:
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()


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


class _Weights:
    """Parameters as a member of a checkpoint."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Any]:
        return dict(self.module.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        return self.module.load_state_dict(state)


@plant("accumulation_is_one_batch", "a mean of means (transformers#24725, torchtune#1875)")
class MeanOfMeans(Loop):
    """Short rows count more."""

    def terms(self, job: TrainingJob, batch: Batch, batches: Sequence[Batch]) -> float:
        return len(batches) * job.objective.count(batch)


@plant("resumes_bit_exactly", "the optimizer is not in the checkpoint (accelerate#2016 and its kin)")
class ForgetsTheOptimizer(Loop):
    """Moments begin over."""

    def members(self, members: dict[str, Any]) -> dict[str, Any]:
        return {name: member for name, member in members.items() if name != "optimizer"}


@plant("resumes_bit_exactly", "the stream's position is not in the checkpoint (torchtitan#1213)")
class ForgetsThePosition(Loop):
    """Data begin over."""

    def members(self, members: dict[str, Any]) -> dict[str, Any]:
        return {name: member for name, member in members.items() if name != "stream"}


@plant("done_stays_done", "no checkpoint at the end")
class NoLastCheckpoint(Loop):
    """Begins over."""

    def finish(self, job: TrainingJob, members: dict[str, Any]) -> None:
        pass


@plant("zero_rate_changes_nothing", "weights shrink by themselves")
class ShrinksWeights(Loop):
    """A hidden decay."""

    def clear(self, optimizer: Any) -> None:
        super().clear(optimizer)
        with torch.no_grad():
            for _, p, _ in optimizer.parameters:
                p.mul_(1 - 1e-6)


@plant("padding_changes_nothing", "padding counts as terms")
class CountsPadding(Loop):
    """All positions."""

    def terms(self, job: TrainingJob, batch: Batch, batches: Sequence[Batch]) -> float:
        return sum(each.targets.numel() for each in batches)


@plant("gradients_are_the_mean_loss", "each parameter is clipped on its own")
class ClipsEach(Loop):
    """Changes the direction."""

    def clip(self, parameters: list[nn.Parameter]) -> None:
        for p in parameters:
            super().clip([p])


@plant("gradients_are_the_mean_loss", "parameters of the head are forgotten by the optimizer")
class ForgetsAGroup(Loop):
    """Norms are never stepped."""

    def optimizer(self, job: TrainingJob, trained: Any) -> Any:
        return job.optimizer.build([entry for entry in trained if entry[2].role != "norm"])


@plant("rate_follows_the_schedule", "the schedule counts micro-batches (accelerate#963, diffusers#3954)")
class SchedulePerMicroBatch(Loop):
    """Too fast."""

    def factor(self, schedule: Any, step: int, job: TrainingJob) -> float:
        return float(schedule.factor(step * job.accumulate + 1, job.steps))


@plant("only_the_trainable_move", "what shall be frozen is trained")
class TrainsAll(Loop):
    """Ignores trainable."""

    def enter(self, module: nn.Module) -> None:
        super().enter(module)
        module.requires_grad_(True)


@plant("leaves_no_trace", "left in training mode")
class StaysInTraining(Loop):
    """Dropout afterwards."""

    def leave(self, module: nn.Module, modes: list[bool], wanted: list[bool]) -> None:
        super().leave(module, [True] * len(modes), wanted)


@plant("nan_stops_it", "goes on with NaN")
class GoesOnWithNan(Loop):
    """Doesn't look."""

    def broken(self, step: int, batches: Sequence[Batch]) -> None:
        pass


@plant("noise_teaches_nothing", "each token is its own target")
class AsksWhatIsGiven(Loop):
    """No shift."""

    def gradients(self, job: TrainingJob, batches: Sequence[Batch], step: int, optimizer: Any) -> float:
        same = [replace(batch, targets=batch.ids.masked_fill(batch.targets == IGNORE, IGNORE)) for batch in batches]
        return super().gradients(job, same, step, optimizer)


@plant("learns_to_count", "the optimizer never moves")
class NeverMoves(Loop):
    """Gradients are cleared before the step."""

    def clip(self, parameters: list[nn.Parameter]) -> None:
        for p in parameters:
            p.grad = None
