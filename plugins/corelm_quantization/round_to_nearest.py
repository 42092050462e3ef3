"""Rounding to nearest: every weight to the closest point of its group's grid."""

from __future__ import annotations

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import Codes, ComponentConfig, Quantizer, Statistics
from corelm_quantization.grid import Grid, ScaleType, consecutive, working


class RoundToNearest(Quantizer):
    """Round to nearest: each weight to the closest point of its group's uniform grid.

    Needs no data; every weight is within half a step. With 8 bits and one group per output channel the error is
    rarely noticed; with 4 bits use small groups, or a method that looks at the data.
    """

    class Config(ComponentConfig):
        """Options of ``round-to-nearest``."""

        bits: int = Field(8, ge=2, le=8, description="Bits of one code.")
        group: int = Field(0, ge=0, description="Inputs that share a step; 0: all inputs of an output channel.")
        symmetric: bool = Field(True, description="Whether the grid is the same on both sides of zero.")
        scale_dtype: ScaleType = Field("float32", description="Type that steps are kept in.")

    def quantize(self, weight: Float[Tensor, "outputs inputs"], statistics: Statistics | None = None) -> Codes:
        """Choose the codes; statistics are not looked at."""
        config = self.config
        grid = Grid(config.bits, config.symmetric, config.scale_dtype)
        return nearest(weight, grid, config.group)

    def refuses(self, outputs: int, inputs: int) -> str | None:
        """Every shape will do."""
        return None


def nearest(weight: Float[Tensor, "outputs inputs"], grid: Grid, group: int, note: str = "") -> Codes:
    """Round every weight to the closest point of its group's grid."""
    weight = working(weight)
    groups = consecutive(weight.shape[1], group, weight.device)
    scale, zero = grid.steps(weight, groups)
    index = groups.long()
    codes = grid.round(weight, scale[:, index], zero[:, index])
    return grid.finish(codes, scale, zero, groups, note)
