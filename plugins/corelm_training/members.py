"""What a training keeps in its checkpoints besides optimizer and stream: weights and counters."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from corelm.errors import UserError

SMOOTHING = 0.95
"""Weight of the past in running means: they look back about twenty steps."""


def step_seed(seed: int, step: int, micro_batch: int) -> int:
    """Seed of everything random in one micro-batch's forward pass."""
    digest = hashlib.sha256(f"{seed}/{step}/{micro_batch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the processor and this device; other devices keep their random state."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class Weights:
    """The trained parameters of a module and its buffers, by name, each tied tensor once.

    Frozen parameters are left out: whoever builds the job again brings them.
    """

    def __init__(self, module: nn.Module, trained: set[str]) -> None:
        self.module = module
        self.trained = trained

    def _tensors(self) -> dict[str, Tensor]:
        persistent = self.module.state_dict(keep_vars=True)
        return {
            name: tensor
            for name, tensor in persistent.items()
            if isinstance(tensor, Tensor) and (name in self.trained or not isinstance(tensor, nn.Parameter))
        }

    def state_dict(self) -> dict[str, Any]:
        """The tensors as they are."""
        return {name: tensor.detach() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy saved values into the module's tensors.

        Raises:
            UserError: names or shapes are another model's.
        """
        tensors = self._tensors()
        wrong = set(tensors) ^ set(state) | {
            name for name in set(tensors) & set(state) if tensors[name].shape != state[name].shape
        }
        if wrong:
            raise UserError(
                f"the checkpoint is of another model: {', '.join(sorted(wrong)[:5])} differ",
                remedy="Redo the stage from its start.",
                code="checkpoint-mismatch",
            )
        for name, tensor in tensors.items():
            tensor.copy_(state[name])


class Counters:
    """Steps, tokens, and running means of the figures."""

    def __init__(self) -> None:
        self.step = 0
        self.tokens = 0
        self.running: dict[str, float] = {}
        self.weight = 0.0

    def count(self, tokens: int, figures: dict[str, float]) -> None:
        """Take in one step's tokens and figures."""
        self.tokens += tokens
        self.weight = SMOOTHING * self.weight + 1 - SMOOTHING
        for name, value in figures.items():
            self.running[name] = SMOOTHING * self.running.get(name, 0.0) + (1 - SMOOTHING) * value

    def means(self) -> dict[str, float]:
        """Each figure's mean over about the last twenty steps."""
        return {name: value / self.weight for name, value in self.running.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"step": self.step, "tokens": self.tokens, "running": dict(self.running), "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.step, self.tokens, self.weight = state["step"], state["tokens"], state["weight"]
        self.running = dict(state["running"])
