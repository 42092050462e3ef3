"""Parts that are wrong in one way which no law of their kind is about, but a law of all kinds."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.bugs.feedforward import Gated
from corelm.conformance.bugs.norm import RootMeanSquare
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.carriers import LayerStep
from corelm.kinds.component import Component, ComponentConfig


@plant("kind_has_properties", "a new kind, and nobody has said what its parts must satisfy")
class Retriever(Component):
    """Finds documents."""

    kind = "retriever"

    @abstractmethod
    def find(self, query: str) -> list[str]:
        """Documents that fit."""


@plant("follows_float64", "autocast is switched on inside of the part, so that single precision is none")
class AutocastInside(Gated):
    """bfloat16, whatever came in."""

    def hidden(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=x.device.type == "cpu"):
            return super().hidden(x).to(x.dtype)


@plant("stays_on_its_device", "a table is made on the processor, wherever the part is")
class TableOnTheCpu(Gated):
    """torch.ones without a device."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) * torch.ones(12, dtype=x.dtype)


@reference
class Defined(RootMeanSquare):
    """With its own definition."""

    def reference(self, x: Tensor) -> Tensor:
        """Number by number."""
        rows = [row / (sum(v * v for v in row) / len(row) + self.epsilon) ** 0.5 for row in x.flatten(0, -2)]
        return torch.stack(rows).view_as(x) * self.weight


@plant("equals_its_reference", "the fast way adds features up in pairs, and loses the last of an odd number")
class LosesTheOdd(Defined):
    """As if the width were even; its own definition knows better."""

    def statistic(self, x: Tensor) -> Tensor:
        return x[..., : (x.shape[-1] - 1) // 2 * 2].square().mean(-1, keepdim=True)


@plant("compiled_equals_eager", "it looks at values, so that a compiler must cut it in pieces")
class LooksAtValues(RootMeanSquare):
    """if x.max() > …"""

    def divide(self, x: Tensor) -> Tensor:
        return super().divide(x / 2 if float(x.detach().abs().max()) > 1e6 else x)


@plant(
    "recomputing_changes_nothing", "dropout with a generator of its own, which has moved on when it is computed again"
)
class OwnGenerator(RootMeanSquare):
    """Another mask in the backward pass."""

    def divide(self, x: Tensor) -> Tensor:
        y = super().divide(x)
        if not self.training:
            return y
        generator: torch.Generator = self.__dict__.setdefault("generator", torch.Generator().manual_seed(3))
        return y * (torch.rand(y.shape, generator=generator) > 0.1)


@plant("takes_an_empty_batch", "an axis is left to be guessed, which can't be where there is nothing")
class GuessesAnAxis(RootMeanSquare):
    """reshape(rows, -1, features)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 3:
            return super().forward(x)
        return super().forward(x.reshape(x.shape[0], -1, x.shape[-1]))


@plant("every_option_matters", "an option is taken, described and never used")
class NobodyReadsIt(RootMeanSquare):
    """offset."""

    class Config(RootMeanSquare.Config):
        """Options."""

        offset: bool = Field(False, description="Whether the gain is stored as its distance from one.")


@plant("speed_changes_no_result", "in chunks, and the tokens that don't fill the last one are left out")
class ForgetsTheLastChunk(Gated):
    """Floor."""

    only_speed = frozenset({"chunk"})

    class Config(ComponentConfig):
        """Options."""

        chunk: int = Field(4, gt=0, le=16, description="Tokens that are worked on at once.")

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        whole = x.shape[1] // self.config.chunk * self.config.chunk
        return torch.cat([super().forward(x[:, :whole], step), torch.zeros_like(x[:, whole:])], 1)


@plant("refusals_say_why", "what can't be done is said, and not what to do instead")
class NoRemedy(RootMeanSquare):
    """Sorry."""

    def __init__(self, config: Any, dim: int) -> None:
        if config.eps > 5e-3:
            raise UserError("eps is too large")
        super().__init__(config, dim)
