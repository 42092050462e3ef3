"""Layer normalisation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import ParameterInfo, declare
from corelm_norms.gain import GainedNorm, statistics_dtype


class LayerNorm(GainedNorm):
    """Subtracts the mean and divides by the standard deviation (Ba et al., 2016, arXiv:1607.06450).

    ``y = (x − mean(x)) / √(var(x) + eps) · gain + bias``, ``var`` over all features (no Bessel correction), all in
    float32 or better and rounded once to the type of ``x``.
    """

    centred: ClassVar[bool] = True

    class Config(GainedNorm.Config):
        """Options."""

        eps: float = Field(1e-5, gt=0, lt=1, description="Added to the variance under the root.")
        bias: bool = Field(True, description="Whether there is a learned bias per feature.")

    @classmethod
    def parameter_count(cls, config: Any, dim: int) -> int:
        """``2 · dim``."""
        return super().parameter_count(config, dim) + dim * int(config.bias)

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        if config.bias:
            declare(self, "bias", (dim,), ParameterInfo("bias", constant=0.0))
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise the last axis."""
        wide = x.to(statistics_dtype(x))
        bias = None if self.bias is None else self.bias.to(wide.dtype)
        return F.layer_norm(wide, (self.dim,), self.gain(wide.dtype), bias, self.epsilon).to(x.dtype)
