"""Normal initialisation."""

from __future__ import annotations

import math

from pydantic import Field

from corelm.kinds import ComponentConfig, Init, ParameterInfo


class Normal(Init):
    """Normal with one deviation, smaller for maps that write to the residual stream.

    Those maps' deviation is divided by √(2 · layers) (Radford et al., 2019, "Language models are unsupervised multitask
    learners", https://openai.com/index/better-language-models), since each layer adds twice to the stream.
    """

    class Config(ComponentConfig):
        """Options."""

        deviation: float = Field(0.02, gt=0, description="Standard deviation.")
        depth_scaled: bool = Field(True, description="Whether maps that write to the residual stream get less.")

    def deviation(self, name: str, info: ParameterInfo) -> float:
        """Standard deviation of this parameter's initial values."""
        scaled = self.config.depth_scaled and info.residual and self.model.depth > 0
        return float(self.config.deviation / (math.sqrt(2 * self.model.depth) if scaled else 1.0))
