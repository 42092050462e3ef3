"""Rounding to nearest: every weight to the closest point of its group's grid."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import Codes, ComponentConfig, Quantizer, Statistics, consecutive
from corelm_quantization.grid import Grid, ScaleType, working


class RoundToNearest(Quantizer):
    """Round to nearest: each weight to the closest point of its group's uniform grid.

    Needs no data; every weight is within half a step. With 8 bits and one group per output channel the error is
    rarely noticed; with 4 bits use small groups, or a method that looks at the data.
    """

    elementary = True

    class Config(ComponentConfig):
        """Options of ``round-to-nearest``."""

        bits: int = Field(8, ge=2, le=8, description="Bits of one code.")
        group: int = Field(0, ge=0, description="Inputs that share a step; 0: all inputs of an output channel.")
        symmetric: bool = Field(True, description="Whether the grid is the same on both sides of zero.")
        scale_dtype: ScaleType = Field("float32", description="Type that steps are kept in.")

    def quantize(self, weight: Float[Tensor, "outputs inputs"], statistics: Statistics | None = None) -> Codes:
        """Choose the codes; statistics are not looked at."""
        return nearest(weight, _grid(self.config), self.config.group)

    def reference(self, weight: Float[Tensor, "outputs inputs"], statistics: Statistics | None = None) -> Codes:
        """The definition, a row, a group and a weight at a time in plain numbers."""
        config, (outputs, inputs) = self.config, weight.shape
        grid, size, top = _grid(config), config.group or max(inputs, 1), 2**config.bits - 1
        codes, scales, zeros = torch.zeros(outputs, inputs), torch.ones(outputs, -(-inputs // size)).double(), []
        for row, values in enumerate(weight.double().tolist()):
            for first in range(0, inputs, size):
                group = values[first : first + size]
                reach = max(map(abs, group)) if config.symmetric else max(0.0, *group) - min(0.0, *group)
                exact = reach / (2 ** (config.bits - 1) - 1 if config.symmetric else top)
                step = float(grid.kept(torch.tensor(exact, dtype=torch.float64))) or 1.0
                zero = 2 ** (config.bits - 1) if config.symmetric else round(-min(0.0, *group) / step)
                for place, value in enumerate(group, first):
                    codes[row, place] = min(max(round(value / step) + zero, 0), top)
                scales[row, first // size] = step
                zeros.append(zero)
        groups = torch.arange(inputs, dtype=torch.int32) // size
        zero_points = torch.tensor(zeros, dtype=torch.uint8).view(scales.shape)
        return Codes(codes.to(torch.uint8), scales.to(grid.dtype_of(scales)), zero_points, groups, config.bits)

    def refuses(self, outputs: int, inputs: int) -> str | None:
        """Every shape will do."""
        return None


def _grid(config: RoundToNearest.Config) -> Grid:
    return Grid(config.bits, config.symmetric, config.scale_dtype)


def nearest(weight: Float[Tensor, "outputs inputs"], grid: Grid, group: int, note: str = "") -> Codes:
    """Round every weight to the closest point of its group's grid."""
    weight = working(weight)
    groups = consecutive(weight.shape[1], group, weight.device)
    scale, zero = grid.steps(weight, groups)
    index = groups.long()
    codes = grid.round(weight, scale[:, index], zero[:, index])
    return grid.finish(codes, scale, zero, groups, note)
