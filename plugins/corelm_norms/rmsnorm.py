"""Root mean square normalisation."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from corelm_norms.gain import GainedNorm, statistics_dtype


class RMSNorm(GainedNorm):
    """Divides by the root mean square (Zhang & Sennrich, 2019, arXiv:1910.07467).

    ``y = x / √(mean(x²) + eps) · gain``, all in float32 or better and rounded once to the type of ``x``.
    """

    centred: ClassVar[bool] = False

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise the last axis."""
        wide = x.to(statistics_dtype(x))
        return F.rms_norm(wide, (self.dim,), self.gain(wide.dtype), self.epsilon).to(x.dtype)
