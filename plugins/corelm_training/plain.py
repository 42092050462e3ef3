"""The reader's training loop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from corelm.errors import Interrupted, UserError
from corelm.kinds import (
    Batch,
    ComponentConfig,
    Optimizer,
    ParameterInfo,
    Terms,
    Trainer,
    TrainingJob,
    TrainingResult,
    declared,
    float32_products,
)
from corelm_training.members import Counters, Weights, seed_device, step_seed
from corelm_training.precision import Precision, require_compiler, resolve
from corelm_training.processes import Alone, RankedStream


class Plain(Trainer):
    """The whole loop in the open: one process, which trains where the model is.

    A step draws its micro-batches, sums their losses' gradients, each divided by the number of terms of *all* of
    them, clips the norm once, and moves the optimizer. Micro-batch j of step s has its own random numbers, seeded
    by (seed, s, j), so that a resumed run repeats them and the number of processes doesn't matter.
    """

    class Config(ComponentConfig):
        """Arithmetic and clipping."""

        precision: Precision = Field(
            "auto",
            description="fp32, bf16 (weights and moments stay float32), or auto: bf16 where the hardware has it.",
        )
        clip: float | None = Field(
            1.0, gt=0, description="Largest norm of all gradients together; null: no clipping."
        )
        compile: bool = Field(False, description="Compile the model (needs a C++ compiler; slow first step).")

    @contextlib.contextmanager
    def processes(self, job: TrainingJob) -> Iterator[Alone]:
        """Who trains together, and where, for as long as the training lasts."""
        yield Alone(job.model.device)

    def fit(self, job: TrainingJob) -> TrainingResult:
        """Train until ``job.steps``; from the newest checkpoint where there is one."""
        with self.processes(job) as processes, _prepared(job, processes.device) as trained:
            if job.accumulate % processes.world:
                raise UserError(
                    f"{job.accumulate} micro-batches a step can't be shared by {processes.world} processes evenly",
                    remedy=f"Make `accumulate` a multiple of {processes.world}.",
                    code="accumulate-not-divisible",
                )
            return _Run(self.config, job, processes, trained).go()


@contextlib.contextmanager
def _prepared(job: TrainingJob, device: torch.device) -> Iterator[list[tuple[str, nn.Parameter, ParameterInfo]]]:
    """Training mode and trainable parameters; everything is as it was afterwards, random state included."""
    module = job.model.module
    parameters = list(declared(module))
    modes = [(child, child.training) for child in module.modules()]
    wanted = [(parameter, parameter.requires_grad) for _, parameter, _ in parameters]
    for name, parameter, _ in parameters:
        parameter.requires_grad_(parameter.requires_grad and (job.trainable is None or job.trainable(name)))
    trained = [entry for entry in parameters if entry[1].requires_grad]
    if not trained:
        raise UserError("no parameter is left to train", remedy="Widen what is trainable.", code="nothing-to-train")
    try:
        module.train()
        with torch.random.fork_rng([device] if device.type == "cuda" else []), float32_products(device):
            yield trained
    finally:
        for child, mode in modes:
            child.training = mode
        for parameter, was in wanted:
            parameter.requires_grad_(was)
            parameter.grad = None


class _Run:
    """One training from its start, or its checkpoint, to its end."""

    def __init__(
        self, config: Any, job: TrainingJob, processes: Alone, trained: list[tuple[str, nn.Parameter, ParameterInfo]]
    ) -> None:
        self.config, self.job, self.processes = config, job, processes
        self.parameters = [parameter for _, parameter, _ in trained]
        self.optimizer: Optimizer = job.optimizer.build(trained)
        self.schedule = job.schedule.build()
        self.stream = job.streams(processes)
        self.streams = RankedStream(self.stream, processes)
        self.counters = Counters()
        self.members = {
            "model": Weights(job.model.module, {name for name, _, _ in trained}),
            "optimizer": self.optimizer,
            "stream": self.streams,
            "counters": self.counters,
            **{f"member.{name}": member for name, member in job.members.items()},
        }
        self.bf16 = resolve(config.precision, processes.device) == "bf16"
        self.evaluate: Callable[..., Terms] = job.objective.evaluate
        if config.compile:
            require_compiler(processes.device)
            self.evaluate = torch.compile(job.objective.evaluate)

    def go(self) -> TrainingResult:
        """Step until the end; save when due, when asked to stop, and at the end."""
        job, counters = self.job, self.counters
        counters.step = saved = job.checkpoints.restore(self.members)
        started, tokens = time.perf_counter(), counters.tokens
        while counters.step < job.steps:
            self.step(counters.step)
            counters.step += 1
            first = self.processes.rank == 0
            stop, due = self.agree(job.watch.stopping, first and job.checkpoints.due(counters.step))
            if stop or due or counters.step == job.steps:
                self.save()
                saved = counters.step
            if stop and counters.step < job.steps:
                raise Interrupted(
                    f"stopped after step {saved} of {job.steps}", remedy="Run it again to go on.", code="interrupted"
                )
        figures = {**counters.means(), "tokens": float(counters.tokens)}
        if counters.tokens > tokens:
            figures["tokens_per_second"] = (counters.tokens - tokens) / (time.perf_counter() - started)
        return TrainingResult(counters.step, figures)

    def step(self, step: int) -> None:
        """One optimizer step: draw, differentiate, sum, clip, check, move, tell."""
        started = time.perf_counter()
        share = self.job.accumulate // self.processes.world
        # Streams that generate or score do so in the arithmetic of the training: else ratios would not begin at 1.
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.bf16):
            batches = list(islice(self.stream, share))
        terms_here = sum(self.job.objective.count(batch) for batch in batches)
        here = torch.tensor([terms_here, sum(batch.tokens for batch in batches), share - len(batches)])
        count, tokens, missing = self.processes.add(here).tolist()
        if missing:
            raise UserError(
                f"the data ended at step {step + 1} of {self.job.steps}",
                remedy="Train for fewer tokens, or allow more epochs.",
                code="data-ended",
            )
        terms = [self.differentiate(batch, step, j, max(count, 1)) for j, batch in enumerate(batches)]
        self.processes.add_gradients(self.parameters)
        norm = self.clip()
        figures = self.read(terms, max(count, 1), norm)
        if not (math.isfinite(figures["loss"]) and math.isfinite(figures["gradient_norm"])):
            raise self.not_finite(step + 1, batches, terms, figures)
        factor = self.schedule.factor(step, self.job.steps)
        self.optimizer.step(factor)
        self.optimizer.zero_grad()
        self.counters.count(tokens, figures)
        if self.processes.rank == 0:
            figures["learning_rate"] = self.optimizer.learning_rate * factor
            figures["tokens"] = float(self.counters.tokens)
            figures["tokens_per_second"] = tokens / (time.perf_counter() - started)
            self.job.watch.step(step + 1, self.job.steps, figures)

    def differentiate(self, batch: Batch, step: int, j: int, count: int) -> Terms:
        """Add one micro-batch's share of the gradients; its terms come back without their graph."""
        processes = self.processes
        seed_device(processes.device, step_seed(self.job.seed, step, j * processes.world + processes.rank))
        batch = batch.to(processes.device)
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.evaluate(self.job.model, batch)
        if terms.total.requires_grad:
            (terms.total / count).backward()
        return Terms(terms.total.detach(), terms.sums)

    def clip(self) -> Tensor:
        """Scale all gradients so that their norm is at most ``clip``; the norm that it was before."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.config.clip is not None and gradients:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip, norm)
        return norm

    def read(self, terms: list[Terms], count: int, norm: Tensor) -> dict[str, float]:
        """The step's figures, per term, over all processes; the only time that the step waits for the device."""
        names = sorted(terms[0].sums)
        rows = [torch.stack([term.total, *(term.sums[name].to(term.total) for name in names)]) for term in terms]
        means = self.processes.add(torch.stack(rows).cpu().double().sum(0)) / count
        return dict(zip(["loss", *names, "gradient_norm"], [*means.tolist(), float(norm)], strict=True))

    def agree(self, *flags: bool) -> list[bool]:
        """Which flags some process has raised."""
        return [bool(count) for count in self.processes.add(torch.tensor(flags).long()).tolist()]

    def save(self) -> None:
        """Write a checkpoint; every process gives its stream's position, the first one writes, the others wait."""
        self.streams.collect()
        if self.processes.rank == 0:
            self.job.checkpoints.save(self.counters.step, self.members)
        self.processes.wait()

    def not_finite(self, step: int, batches: list[Batch], terms: list[Terms], figures: dict[str, float]) -> UserError:
        """What to tell about a loss or gradient that is NaN or infinite: where, and which documents were read.

        Every process calls it, since all of them have seen the same sums.
        """
        broken = [b for b, term in zip(batches, terms, strict=True) if not math.isfinite(float(term.total))]
        read = self.processes.gather([[name for batch in some for name in batch.names] for some in (broken, batches)])
        told = [list(dict.fromkeys(chain.from_iterable(names))) for names in zip(*read, strict=True)]
        names = told[0] or told[1] or ["unnamed documents"]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return UserError(
            f"step {step}: loss {figures['loss']:g}, gradient norm {figures['gradient_norm']:g}; the batch held {shown}",
            remedy="The last checkpoint is kept. Lower the learning rate, warm up longer, or look at these documents.",
            code="not-finite-loss",
            step=step,
            documents=names,
        )
