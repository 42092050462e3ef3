"""Kind ``adapter``: small trainable additions to linear maps that can be merged back."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds.component import Component
from corelm.kinds.parameters import Linear


class AdaptedLinear(nn.Module):
    """A linear map with an addition. Sub-module ``base`` is the frozen map that was wrapped."""

    base: nn.Module

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Apply the map and the addition."""
        raise NotImplementedError

    def merged(self) -> Linear:
        """One linear map that computes the same."""
        raise NotImplementedError


class Adapter(Component):
    """Wraps linear maps.

    Built as ``Part(config)``. The recipe's ``targets`` (name patterns) choose the maps; a pattern that matches
    nothing is an error.

    Contract:
        * At the start the wrapped map computes exactly what it did before.
        * Only the addition is trainable; ``base`` never changes.
        * ``merged()`` computes the same as the wrapped map (1e-10 in float64).
        * ``reference(wrapped, x)``, where there is one: what a map that it has wrapped computes, in evaluation.
    """

    kind: ClassVar[str] = "adapter"

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def wrap(self, linear: Linear, name: str, generator: torch.Generator) -> AdaptedLinear:
        """Wrap one map; ``generator`` is seeded by the map's name."""
