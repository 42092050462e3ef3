"""Trainers that are wrong in one way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import nn

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
            self.shared(job.streams(self.processes())),
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
            self.tell(job, step, {"loss": total, "learning_rate": optimizer.learning_rate * factor})
            if self.due(job, step):
                self.save(job, step, members)
            if self.stopping(job) and step < job.steps:
                self.save(job, step, members)
                raise Interrupted(f"stopped after step {step}")
        self.finish(job, members)
        return TrainingResult(step, {"loss": total})

    def shared(self, stream: Any) -> Any:
        """The stream as a member of the checkpoint."""
        return stream

    def tell(self, job: TrainingJob, step: int, figures: dict[str, float]) -> None:
        """Report."""
        job.watch.step(step, job.steps, figures)

    def save(self, job: TrainingJob, step: int, members: dict[str, Any]) -> None:
        """Write a checkpoint."""
        job.checkpoints.save(step, members)

    def stopping(self, job: TrainingJob) -> bool:
        """Whether it was asked to stop."""
        return job.watch.stopping

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
        self.save(job, job.steps, members)

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


class _Weights:
    """Parameters as a member of a checkpoint."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Any]:
        return dict(self.module.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (own := self.shapes(self.module.state_dict())) != (theirs := self.shapes(state)):
            raise UserError(f"it is of another model: {sorted(own ^ theirs)}")
        self.module.load_state_dict(state)

    def shapes(self, tensors: dict[str, Any]) -> set[Any]:
        return {(name, *tensor.shape) for name, tensor in tensors.items()}


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
