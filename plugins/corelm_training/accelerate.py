"""The training loop on accelerators and over several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from pydantic import Field
from torch import Tensor

from corelm.kinds import TrainingJob
from corelm_training.plain import Plain
from corelm_training.processes import Alone


class Accelerate(Plain):
    """The loop of ``plain`` on the devices and processes that the accelerate library finds.

    Start it with ``accelerate launch`` or ``torchrun``, or alone. Each process takes its share of a step's
    micro-batches; the number of terms is summed over all of them before, the gradients after differentiating, so that
    one process or many do the same. The library's own ``backward``, ``prepare`` and ``save_state`` are not used: they
    average where sums are wanted, and write pickles.
    """

    class Config(Plain.Config):
        """Where to train."""

        device: Literal["auto", "cpu"] = Field("auto", description="auto: an accelerator where there is one.")

    @contextlib.contextmanager
    def processes(self, job: TrainingJob) -> Iterator[Alone]:
        """The model moves to the device, and home again at the end."""
        together = Together(PartialState(cpu=self.config.device == "cpu"))
        home = job.model.device
        job.model.module.to(together.device)
        try:
            yield together
        finally:
            job.model.module.to(home)


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

    def gather(self, state: Any) -> list[Any]:
        """Every process's plain data and tensors, by rank."""
        gathered: list[Any] = gather_object([state])
        return gathered

    def wait(self) -> None:
        """Until every process is here."""
        self.state.wait_for_everyone()
