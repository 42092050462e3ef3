"""The uniform grid that quantizers round to: steps from the range of the data, whole-number zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import Codes

ScaleType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Grid:
    """Which whole numbers weights may become, and how steps are chosen.

    A step is ``max|w| / (2^(bits−1) − 1)`` for symmetric grids, whose zero point is ``2^(bits−1)``, and
    ``(max(0, max w) − min(0, min w)) / (2^bits − 1)`` for others, so that zero is always on the grid.

    Attributes:
        bits: of one code.
        symmetric: whether the grid is the same on both sides of zero.
        scale_dtype: what steps are rounded to *before* codes are chosen, so that what is saved is what was
            measured; ``float32`` keeps float64 where the weights are.
    """

    bits: int
    symmetric: bool
    scale_dtype: ScaleType = "float32"

    @property
    def top(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    def steps(
        self, weight: Float[Tensor, "outputs inputs"], groups: Int[Tensor, " inputs"]
    ) -> tuple[Float[Tensor, "outputs groups"], Float[Tensor, "outputs groups"]]:
        """Scale and zero point (a whole number, in the dtype of the scale) of each output's groups.

        Raises:
            UserError: a step doesn't fit the type that scales are kept in.
        """
        shape = (weight.shape[0], int(groups.max()) + 1)
        index = groups.long().expand(weight.shape[0], -1)
        nothing = weight.new_zeros(shape)
        high = nothing.scatter_reduce(1, index, weight, "amax")
        low = nothing.scatter_reduce(1, index, weight, "amin")
        reach = torch.maximum(high, -low) if self.symmetric else high - low
        scale = self.kept(reach / (2 ** (self.bits - 1) - 1 if self.symmetric else self.top))
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # a group of zeros: any step will do
        if self.symmetric:
            return scale, torch.full_like(scale, 2 ** (self.bits - 1))
        return scale, torch.round(-low / scale).clamp(0, self.top)

    def kept(self, exact: Tensor) -> Tensor:
        """Steps in the type that they are kept in, rounded up where they must be: down would cut weights off."""
        dtype = self.dtype_of(exact)
        kept = exact.to(dtype)
        if kept.dtype != exact.dtype:
            above = (kept.view(torch.int16) + 1).view(dtype)
            # Not for the last digits of the division: steps of what was quantized before must stay as they are.
            least = exact * (1 - 4 * torch.finfo(exact.dtype).eps)
            kept = torch.where(kept.to(exact.dtype) < least, above, kept)
        wrong = ~torch.isfinite(kept)
        if wrong.any():
            output, group = (int(i) for i in wrong.nonzero()[0])
            raise UserError(
                f"the step {float(exact[output, group]):g} of output channel {output}, group {group}, "
                f"is too large for {self.scale_dtype}",
                remedy="Look at the model's weights." if dtype == exact.dtype else "Use scale_dtype: float32.",
                code="scale-out-of-range",
            )
        return kept.to(exact.dtype)

    def dtype_of(self, exact: Tensor) -> torch.dtype:
        """What scales are kept in."""
        return exact.dtype if self.scale_dtype == "float32" else getattr(torch, self.scale_dtype)

    def finish(self, codes: Tensor, scale: Tensor, zero: Tensor, groups: Tensor, note: str = "") -> Codes:
        """Canonical codes from whole numbers in floating point."""
        whole, kept = codes.to(torch.uint8), scale.to(self.dtype_of(scale))
        return Codes(whole, kept, zero.to(torch.uint8), groups, self.bits, note)

    def round(self, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Codes of the weights, whole numbers in the dtype of the weights; all arguments broadcast."""
        return (torch.round(weight / scale) + zero).clamp(0, self.top)


def working(weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "outputs inputs"]:
    """The weights in float32 or better, detached.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    wrong = ~torch.isfinite(weight)
    if wrong.any():
        output, column = (int(i) for i in wrong.nonzero()[0])
        raise UserError(
            f"the weight of output channel {output}, input {column}, is {float(weight[output, column])}",
            remedy="Quantize a model whose training went well; look at its loss.",
            code="weights-not-finite",
        )
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
