"""Trainers that crash badly, move tensors, draw the wrong chance or calculate in the wrong precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from corelm.conformance.bugs.trainer import Loop
from corelm.conformance.planted import plant, reference
from corelm.kinds.batch import Batch
from corelm.kinds.trainer import TrainingJob, TrainingResult


@plant("gradients_are_fresh", "gradients are cleared every second step")
class ClearsNowAndThen(Loop):
    """Left over from an accumulation that is done elsewhere now."""

    cleared = 0

    def clear(self, optimizer: Any) -> None:
        self.cleared += 1
        if self.cleared % 2:
            super().clear(optimizer)


@plant("survives_a_crash", "checkpoints at the end alone")
class SavesAtTheEnd(Loop):
    """Nobody asks whether one is due."""

    def due(self, job: TrainingJob, step: int) -> bool:
        return False


@plant("survives_a_crash", "the model is put back only where all went well")
class LeavesTheWreck(Loop):
    """No finally."""

    def fit(self, job: TrainingJob) -> TrainingResult:
        module = job.model.module
        modes, wanted = [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]
        result = super().fit(job)
        super().leave(module, modes, wanted)
        return result

    def leave(self, module: nn.Module, modes: list[bool], wanted: list[bool]) -> None:
        pass


@plant("tensors_stay_where_they_are", "parameters are cast there and back")
class CastsThereAndBack(Loop):
    """Other tensors under the same names."""

    def enter(self, module: nn.Module) -> None:
        super().enter(module)
        for p in module.parameters():
            p.data = p.data.clone()


@plant("chance_follows_the_seed", "one mask for all steps")
class OneMask(Loop):
    """Seeded anew each step, with the same number."""

    def seed(self, job: TrainingJob, step: int, number: int) -> None:
        super().seed(job, 0, number)


@plant("chance_follows_the_seed", "a seed of its own")
class SeedOfItsOwn(Loop):
    """Nobody reads the job's."""

    def seed(self, job: TrainingJob, step: int, number: int) -> None:
        super().seed(replace(job, seed=0), step, number)


@reference
class Arithmetic(Loop):
    """The loop in half precision, and compiled, where that is asked for."""

    class Config(Loop.Config):
        """Options."""

        precision: Literal["auto", "fp32", "bf16"] = Field("fp32", description="Of products.")
        compile: bool = Field(False, description="Trace the loss.")

    def loop(self, job: TrainingJob, trained: Any) -> TrainingResult:
        """With another objective."""
        if self.config.compile:
            job = replace(job, objective=_Compiled(job.objective))  # type: ignore[arg-type]
        return super().loop(job, trained)

    def gradients(self, job: TrainingJob, batches: Sequence[Batch], step: int, optimizer: Any) -> float:
        """Under autocast."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low()):
            return super().gradients(job, batches, step, optimizer)

    def low(self) -> bool:
        """Whether bfloat16 is taken."""
        found: bool = torch.cpu.get_capabilities().get("avx512_bf16", False)
        return found if self.config.precision == "auto" else self.config.precision == "bf16"


class _Compiled:
    """An objective whose evaluation is compiled."""

    def __init__(self, objective: Any) -> None:
        self.objective, self.evaluate, self.count = objective, torch.compile(objective.evaluate), objective.count


@plant("compiled_step_equals_eager", "the number of terms is burnt into the graph")
class BurnsTheCountIn(Arithmetic):
    """That of the first batch."""

    def terms(self, job: TrainingJob, batch: Batch, batches: Sequence[Batch]) -> float:
        found = super().terms(job, batch, batches)
        return float(self.__dict__.setdefault("burnt", found)) if self.config.compile else found


@plant("half_precision_is_for_products", "weights are in bfloat16 between the steps")
class HalfWeights(Arithmetic):
    """Small steps are lost."""

    def clear(self, optimizer: Any) -> None:
        super().clear(optimizer)
        if self.config.precision == "bf16":
            for _, p, _ in optimizer.parameters:
                p.data.copy_(p.data.bfloat16())


@plant("auto_precision_is_the_hardwares", "the hardware decides, whatever was asked for")
class OverrulesTheRecipe(Arithmetic):
    """bfloat16 where it is fast."""

    def low(self) -> bool:
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


@plant("chances_are_not_repeated", "one seed for all micro-batches of a step")
class OneChanceForAll(Loop):
    """Each drops the same features."""

    def seed(self, job: TrainingJob, step: int, number: int) -> None:
        super().seed(job, step, 0)


@plant("rate_follows_the_schedule", "steps are told as they are counted inside, from zero")
class TellsFromZero(Loop):
    """A run that ends at 4 of 5."""

    def fit(self, job: TrainingJob) -> TrainingResult:
        return super().fit(replace(job, watch=_FromZero(job.watch)))


class _FromZero:
    """Hands steps on, each with a number less."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watch, name)

    def step(self, step: int, total: int, figures: Any) -> None:
        """One less."""
        self.watch.step(step - 1, total, figures)


class _Parameters:
    """Parameters only, and of those what fits."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Any]:
        return {name: parameter.detach() for name, parameter in self.module.named_parameters()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if name in state and state[name].shape == parameter.shape:
                    parameter.copy_(state[name])


@plant("resumes_bit_exactly", "buffers are not in the checkpoint")
class ForgetsBuffers(Loop):
    """Balances of experts begin over."""

    def members(self, members: dict[str, Any]) -> dict[str, Any]:
        return {**members, "model": _Parameters(members["model"].module)}


@plant("another_model_is_refused", "what the checkpoint lacks stays as it is drawn")
class TakesWhatFits(ForgetsBuffers):
    """Half of a model is loaded, and nobody is told."""


@plant("figures_are_of_the_steps", "the loss of the table is a sum")
class SumsTheLoss(Loop):
    """Longer trainings have larger ones."""

    def fit(self, job: TrainingJob) -> TrainingResult:
        result = super().fit(job)
        return replace(result, figures={"loss": result.figures["loss"] * job.steps})


@plant("nan_stops_it", "gradients are taken away where all went well")
class LeavesBrokenGradients(Loop):
    """NaN in the next training."""

    def leave(self, module: nn.Module, modes: list[bool], wanted: list[bool]) -> None:
        kept = [p.grad for p in module.parameters()]
        super().leave(module, modes, wanted)
        for parameter, gradient in zip(module.parameters(), kept, strict=True):
            parameter.grad = gradient
