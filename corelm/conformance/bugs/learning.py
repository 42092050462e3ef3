"""Objectives, adapters and trainers that are wrong in one way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from corelm.conformance.planted import plant, reference
from corelm.errors import Interrupted, UserError
from corelm.kinds.adapter import AdaptedLinear, Adapter
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import ComponentConfig
from corelm.kinds.logprobs import token_logprobs
from corelm.kinds.objective import Objective, Terms
from corelm.kinds.parameters import Linear, ParameterInfo, declare, declared
from corelm.kinds.trainer import Trainer, TrainingJob, TrainingResult


@reference
class Likelihood(Objective):
    """Minus the sum of the targets' log-probabilities."""

    def kept(self, batch: Batch) -> Tensor:
        """Which positions count."""
        return batch.targets != IGNORE

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Sum."""
        picked = answer.where(self.kept(batch), 0.0)
        return self.terms(-picked.sum(), picked.detach().sum())

    def terms(self, total: Tensor, figure: Tensor) -> Terms:
        """With a figure."""
        return Terms(total, {"logprob": figure})


@plant("additive", "a mean")
class Mean(Likelihood):
    """Weighs micro-batches wrongly."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        terms = super().loss(answer, batch)
        return Terms(terms.total / self.count(batch), terms.sums)


@plant("no_target_no_gradient", "prompts are learnt as well")
class LearnsPrompts(Likelihood):
    """Every token has a target, the first of the row for the last."""

    def answer(self, model: Any, hidden: Tensor, batch: Batch) -> Tensor:
        return token_logprobs(hidden, model.head, batch.ids.roll(-1, 1))

    def kept(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch.targets, dtype=torch.bool)


@plant("finite_when_wrong", "back to probabilities and to logarithms again")
class ThroughProbabilities(Likelihood):
    """log(exp(x))."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return super().loss(answer.exp().log(), batch)


@plant("figures_are_detached", "a figure with a graph")
class KeepsTheGraph(Likelihood):
    """Not detached."""

    def terms(self, total: Tensor, figure: Tensor) -> Terms:
        return super().terms(total, -total)


@plant("order_of_rows_is_free", "the first rows count more")
class WeighsByRow(Likelihood):
    """1/(row + 1)."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return super().loss(answer / torch.arange(1, len(answer) + 1)[:, None], batch)


@plant("better_is_lower", "the sign")
class WrongWay(Likelihood):
    """Ascends."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        terms = super().loss(answer, batch)
        return Terms(-terms.total, terms.sums)


@reference
class Pairwise(Objective):
    """Bradley–Terry."""

    reads = "scores"
    law = "pairwise-reward"

    def count(self, batch: Batch) -> int:
        """Pairs."""
        return len(batch.ids) // 2

    def difference(self, answer: Tensor) -> Tensor:
        """Chosen minus rejected."""
        return answer[0::2, 0] - answer[1::2, 0]

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Sum."""
        return Terms(-F.logsigmoid(self.difference(answer)).sum())


@plant("antisymmetric", "the difference is clamped")
class ClampedDifference(Pairwise):
    """At one half."""

    def difference(self, answer: Tensor) -> Tensor:
        return super().difference(answer).clamp(max=0.5)


@reference
class LowRank(Adapter):
    """W + B A."""

    class Config(ComponentConfig):
        """Options."""

        rank: int = Field(2, ge=1, le=4, description="Inner size.")

    def wrap(self, linear: Linear, name: str, generator: torch.Generator) -> AdaptedLinear:
        """Wrap."""
        return self.made(linear, generator)

    def made(self, linear: Linear, generator: torch.Generator) -> LowRankLinear:
        """What wraps."""
        return LowRankLinear(linear, self.config.rank, generator)


class LowRankLinear(AdaptedLinear):
    """The wrapped map."""

    factor = 0.5

    def __init__(self, linear: Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base: Linear = self.freeze(linear)
        self.declare_both(linear, rank)
        with torch.no_grad():
            self.a.copy_(torch.randn(self.a.shape, generator=generator))
            self.b.fill_(self.start)

    start = 0.0

    def freeze(self, linear: Linear) -> Linear:
        """Not trainable."""
        return linear.requires_grad_(False)

    def declare_both(self, linear: Linear, rank: int) -> None:
        """A and B."""
        self.a = declare(self, "a", (rank, linear.inputs), ParameterInfo("matrix", linear.inputs))
        self.b = declare(self, "b", (linear.outputs, rank), ParameterInfo("matrix", rank, constant=0.0))
        self.a.data, self.b.data = self.a.data.to(linear.weight.dtype), self.b.data.to(linear.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Both."""
        y: Tensor = self.base(x) + self.factor * (x @ self.a.T @ self.b.T)
        return y

    @torch.no_grad()
    def merged(self) -> Linear:
        """One map."""
        merged = Linear(self.base.inputs, self.base.outputs, bias=self.base.bias is not None).to(self.a.dtype)
        merged.weight.copy_(self.base.weight + self.scale() * (self.b @ self.a))
        if merged.bias is not None and self.base.bias is not None:
            merged.bias.copy_(self.base.bias)
        return merged

    def scale(self) -> float:
        """Of the merged addition."""
        return self.factor


def _variant(name: str, **changes: Any) -> type[LowRank]:
    """An adapter whose wrapped map is changed."""
    inner = type(f"{name}Linear", (LowRankLinear,), changes)

    def made(self: LowRank, linear: Linear, generator: torch.Generator) -> LowRankLinear:
        built: LowRankLinear = inner(linear, self.config.rank, generator)
        return built

    variant: type[LowRank] = type(name, (LowRank,), {"made": made, "__doc__": "One mistake."})
    return variant


def _bare(self: Any, linear: Linear, rank: int) -> None:
    self.a = nn.Parameter(torch.empty(rank, linear.inputs, dtype=linear.weight.dtype))
    self.b = nn.Parameter(torch.empty(linear.outputs, rank, dtype=linear.weight.dtype))


def _mixes(self: Any, x: Tensor) -> Tensor:
    y: Tensor = self.base(x) + self.factor * (x @ self.a.T @ self.b.T)
    return y + self.factor * (x.mean(-2, keepdim=True) @ self.a.T @ self.b.T)


plant("identity_at_the_start", "the addition begins at one")(_variant("StartsAtOne", start=1.0))
plant("merged_equals_wrapped", "the factor is forgotten in merging")(
    _variant("ForgetsTheFactor", scale=lambda self: 1.0)
)
plant("base_is_frozen", "the base is trained as well")(_variant("TrainsTheBase", freeze=lambda self, linear: linear))
plant("additions_are_declared", "bare parameters")(_variant("BareAdditions", declare_both=_bare))
plant("tokenwise", "the mean over tokens is added")(_variant("MixesTokensIn", forward=_mixes))


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
        optimizer, schedule, stream = self.optimizer(job, trained), job.schedule.build(), job.streams(0, 1)
        members = self.members({"model": _Weights(job.model.module), "optimizer": optimizer, "stream": stream})
        step = job.checkpoints.restore(members)
        total = 0.0
        while step < job.steps:
            batches = list(itertools.islice(stream, job.accumulate))
            total = self.gradients(job, batches, step, optimizer)
            if not math.isfinite(total):
                self.broken(step, batches)
            factor = self.factor(schedule, step, job)
            optimizer.step(factor)
            self.clear(optimizer)
            step += 1
            job.watch.step(step, job.steps, {"loss": total, "learning_rate": optimizer.learning_rate * factor})
            if job.watch.stopping and step < job.steps:
                job.checkpoints.save(step, members)
                raise Interrupted(f"stopped after step {step}")
        self.finish(job, members)
        return TrainingResult(step, {"loss": total})

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
            torch.manual_seed(job.seed * 1009 + step * 31 + number)
            terms = job.objective.evaluate(job.model, batch)
            share = terms.total / self.terms(job, batch, batches)
            share.backward()
            total += float(share.detach())
        self.clip([p for _, p, _ in optimizer.parameters])
        return total

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

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        return self.module.load_state_dict(state)


@plant("accumulation_is_one_batch", "a mean of means (transformers#24725)")
class MeanOfMeans(Loop):
    """Short rows count more."""

    def terms(self, job: TrainingJob, batch: Batch, batches: Sequence[Batch]) -> float:
        return len(batches) * job.objective.count(batch)


@plant("resumes_bit_exactly", "the optimizer is not in the checkpoint")
class ForgetsTheOptimizer(Loop):
    """Moments begin over."""

    def members(self, members: dict[str, Any]) -> dict[str, Any]:
        return {name: member for name, member in members.items() if name != "optimizer"}


@plant("resumes_bit_exactly", "the stream's position is not in the checkpoint")
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


@plant("rate_follows_the_schedule", "the schedule counts micro-batches (accelerate#963)")
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


@plant("learns_to_count", "the optimizer never moves")
class NeverMoves(Loop):
    """Gradients are cleared before the step."""

    def clip(self, parameters: list[nn.Parameter]) -> None:
        for p in parameters:
            p.grad = None
