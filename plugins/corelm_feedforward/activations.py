"""Activations: elementwise functions, each a line; gated linear units multiply them with a second projection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from corelm.kinds import Activation, ComponentConfig


class SiLU(Activation):
    """x · sigmoid(x) (Elfwing et al., 2017, arXiv:1702.03118)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return F.silu(x)


class GELU(Activation):
    """x · Φ(x), with the error function (Hendrycks & Gimpel, 2016, arXiv:1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return F.gelu(x)


class GELUTanh(Activation):
    """GELU through a tanh, within 5e-4 of the exact one (Hendrycks & Gimpel, 2016, arXiv:1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return F.gelu(x, approximate="tanh")


class QuickGELU(Activation):
    """x · sigmoid(1.702 x), the rough GELU (Hendrycks & Gimpel, 2016, arXiv:1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return x * torch.sigmoid(1.702 * x)


class ReLU(Activation):
    """max(x, 0)."""

    elementary = True

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return F.relu(x)


class ReLUSquared(Activation):
    """max(x, 0)² (So et al., 2021, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return F.relu(x).square()


class Sigmoid(Activation):
    """1 / (1 + exp(−x)), which is ½ at zero (Dauphin et al., 2016, arXiv:1612.08083)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return torch.sigmoid(x)


class Identity(Activation):
    """x itself; a gated unit with it is bilinear (Shazeer, 2020, arXiv:2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return x


class ClampedSwiGLU(Activation):
    """x · sigmoid(slope · x) for x up to a limit; the value is clamped to ±limit and shifted by one (gpt-oss).

    ``combine(gate, up) = f(min(gate, limit)) · (clamp(up, −limit, limit) + 1)`` (OpenAI, 2025, arXiv:2508.10925): a
    unit passes its opened gate on while the value is zero, and no activation outgrows low precision.
    """

    class Config(ComponentConfig):
        """Options."""

        limit: float = Field(7.0, gt=0, description="Largest gate, and largest magnitude of a value.")
        slope: float = Field(1.702, gt=0, description="Factor of the gate inside the sigmoid.")

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        x = x.clamp(max=self.config.limit)
        return x * torch.sigmoid(self.config.slope * x)

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        """Open the gate for the clamped value and one more."""
        limit = self.config.limit
        return self.forward(gate) * (up.clamp(-limit, limit) + 1)
