"""Kind ``norm``: normalises features."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds.component import Component


class Norm(Component, nn.Module):
    """Normalises the last axis, each token on its own.

    Built as ``Part(config, dim: int)``.

    Contract:
        * Tokenwise: statistics are taken over the last axis only.
        * Statistics are computed in float32 or better; the output has the dtype of the input.
        * Zero input gives the bias (or zero) exactly, with finite gradients.
        * ``unit_gain`` weights give ``mean(y²) = σ²/(σ² + eps)``, σ² the statistic over the last axis
          (mean square, or centred mean square when ``centred``).
        * ``reference(x)``, where there is one.
    """

    kind: ClassVar[str] = "norm"
    centred: ClassVar[bool] = False
    """Whether the mean is subtracted; then adding a constant to all features changes nothing."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = dim

    @property
    @abstractmethod
    def epsilon(self) -> float:
        """What is added to the mean square under the root."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise."""
