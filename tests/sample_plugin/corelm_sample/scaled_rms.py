"""A norm with a single learned number."""

import torch
from pydantic import Field

from corelm.kinds import ComponentConfig, Norm, ParameterInfo, declare


class ScaledRMS(Norm):
    """Divides by the root mean square; one gain for all features."""

    class Config(ComponentConfig):
        eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square under the root.")

    def __init__(self, config, dim):
        super().__init__(config, dim)
        self.gain = declare(self, "gain", (1,), ParameterInfo("norm", constant=1.0))

    @property
    def epsilon(self):
        return self.config.eps

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * (wide.square().mean(-1, keepdim=True) + self.epsilon).rsqrt() * self.gain).to(x.dtype)
