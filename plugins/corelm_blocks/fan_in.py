"""Fan-in initialisation."""

from __future__ import annotations

import math

from pydantic import Field

from corelm.kinds import ComponentConfig, Init, ParameterInfo


class FanIn(Init):
    """Normal with deviation 1/√fan-in, so that widths don't change the scale.

    LeCun et al., 1998, "Efficient BackProp", doi:10.1007/3-540-49430-8_2. Parameters without a fan-in (embeddings,
    vectors) have deviation ``vectors``. Maps that write to the residual stream are divided by √(2 · layers) as well.
    """

    class Config(ComponentConfig):
        """Options."""

        gain: float = Field(1.0, gt=0, description="Factor of all deviations that come from a fan-in.")
        vectors: float = Field(0.02, gt=0, description="Deviation of parameters without a fan-in.")

    def deviation(self, name: str, info: ParameterInfo) -> float:
        """Standard deviation of this parameter's initial values."""
        if not info.fan_in:
            return float(self.config.vectors)
        depth = math.sqrt(2 * self.model.depth) if info.residual and self.model.depth else 1.0
        return float(self.config.gain / math.sqrt(info.fan_in) / depth)
