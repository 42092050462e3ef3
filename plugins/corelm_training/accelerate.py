"""The training loop on accelerators and over several processes."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, Final, Literal

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import TrainingJob
from corelm_training.plain import Plain
from corelm_training.processes import Alone

PATIENCE: Final = timedelta(minutes=30)
"""How long processes wait for each other, e.g. for the first one to write a large checkpoint."""


class Accelerate(Plain):
    """The loop of ``plain`` on the devices and processes that the accelerate library finds.

    Start it with ``accelerate launch`` or ``torchrun``, or alone. Each process takes its share of a step's
    micro-batches; the number of terms is summed over all of them before, the gradients after differentiating, so that
    one process or many do the same. The library's own ``backward``, ``prepare`` and ``save_state`` are not used: they
    average where sums are wanted, and write pickles.
    """

    distributed: ClassVar[bool] = True

    class Config(Plain.Config):
        """Where to train."""

        device: Literal["auto", "cpu"] = Field("auto", description="auto: an accelerator where there is one.")

    @contextlib.contextmanager
    def processes(self, job: TrainingJob) -> Iterator[Alone]:
        """The model moves to the device, and home again at the end."""
        # Without an accelerator the library takes several processes for strangers unless told that they use the CPU.
        together = Together(_state(self.config.device == "cpu" or not torch.accelerator.is_available()))
        home = job.model.device
        job.model.module.to(together.device)
        try:
            yield together
        finally:
            job.model.module.to(home)


@cache
def _state(cpu: bool) -> PartialState:
    """The library's view of the processes; it joins those that there are into a group, which lasts until they end."""
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    atexit.register(state.destroy_process_group)
    return state


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Say in words what a message to the others fails with."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            "another process of this training has ended, or doesn't answer",
            remedy="Look at what it said. Start all of them again to go on from the last checkpoint.",
            code="process-lost",
        ) from error


class Together(Alone):
    """Processes that accelerate has put into one group."""

    def __init__(self, state: PartialState) -> None:
        super().__init__(state.device)
        self.state = state
        self.rank = state.process_index
        self.world = state.num_processes

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor, on all of them."""
        if self.world == 1:
            return tensor
        with _reached():
            summed: Tensor = reduce(tensor.to(self.device), "sum")
        return summed.to(tensor.device)

    def add_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Sum all gradients in one message, with a count for each of the processes that have one."""
        if self.world == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        present = torch.tensor([p.grad is not None for p in parameters], device=self.device)
        flat = self.add(torch.cat([*(gradient.flatten() for gradient in gradients), present.to(gradients[0])]))
        *sums, counts = torch.split(flat, [*(p.numel() for p in parameters), len(parameters)])
        for parameter, total, having in zip(parameters, sums, counts.tolist(), strict=True):
            parameter.grad = total.view_as(parameter).to(parameter.dtype) if having else None

    def gather(self, value: Any) -> list[Any]:
        """Every process's plain data and tensors, by rank."""
        if self.world == 1:
            return [value]
        with _reached():
            gathered: list[Any] = gather_object([value])
        return gathered

    def wait(self) -> None:
        """Until every process is here."""
        with _reached():
            self.state.wait_for_everyone()
