"""The norm at the end of recurrent mixers, with a gate on it."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds import ParameterInfo, declare
from corelm_attention.carrying import wide


class GatedNorm(nn.Module):
    """Root mean square norm (Zhang & Sennrich, 2019, arXiv:1910.07467) and a gate, over the last axis.

    ``gate_first``: weight · norm(y · silu(z)), as in Mamba-2 (Dao & Gu, 2024, arXiv:2405.21060); else
    weight · norm(y) · silu(z), as in Gated DeltaNet (Yang et al., 2024, arXiv:2412.06464). All in float32 or better,
    rounded once to the type of the gate.

    Args:
        dim: features.
        eps: added to the mean square under the root.
        gate_first: whether the gate comes before the norm.
        groups: equal parts of the features, each with a mean square of its own.
    """

    def __init__(self, dim: int, *, eps: float, gate_first: bool, groups: int = 1) -> None:
        super().__init__()
        self.dim, self.eps, self.gate_first, self.groups = dim, eps, gate_first, groups
        self.weight = declare(self, "weight", (dim,), ParameterInfo("norm", constant=1.0))

    def forward(self, y: Float[Tensor, "... dim"], z: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise and gate."""
        gate, y = F.silu(z.to(wide(z))), y.to(wide(z))
        if self.gate_first:
            y = y * gate
        normed = F.rms_norm(y.unflatten(-1, (self.groups, -1)), (self.dim // self.groups,), None, self.eps)
        y = normed.flatten(-2) * self.weight.to(y.dtype)
        return (y if self.gate_first else y * gate).to(z.dtype)
