"""Tokens cut into chunks, and how much of what is written at one token is left at another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corelm_attention.segments import Segments


class Chunks:
    """Decays between the tokens of a chunk, from its start, to its end, and across it.

    Every decay that is taken is a sum of logarithms ≤ 0 from an earlier token to a later one of the same document,
    so that nothing overflows however strong the decay; sums are float64, so that differences of long ones keep their
    digits. Across the start of a document nothing is left.

    Args:
        decay: logarithm of each token's factor, ≤ 0.
        where: documents of the tokens.
        length: tokens of a chunk; the last one is filled up with tokens that change nothing.
        dtype: of the decays.
    """

    def __init__(
        self, decay: Float[Tensor, "batch heads time"], where: Segments, length: int, dtype: torch.dtype
    ) -> None:
        batch, heads, time = decay.shape
        self.time, self.dtype = time, dtype
        self.length = min(length, time)
        self.count = -(-time // self.length)
        self.missing = self.count * self.length - time
        filled = F.pad(decay.to(torch.float64), (0, self.missing))
        self.total = filled.view(batch, heads, self.count, self.length).cumsum(-1)
        segment = torch.cat((where.tokens, where.tokens[:, -1:].expand(-1, self.missing)), 1)
        self.segment: Int[Tensor, "batch 1 count length"] = segment.view(batch, 1, self.count, self.length)
        ends = self.segment[..., -1]
        self.ends: Int[Tensor, "batch 1 count+1"] = torch.cat((where.before[:, None, None], ends), -1)

    def cut(self, x: Float[Tensor, "batch heads time dim"]) -> Float[Tensor, "batch heads count length dim"]:
        """The same tokens in chunks."""
        return F.pad(x, (0, 0, 0, self.missing)).unflatten(2, (self.count, self.length))

    def joined(self, x: Float[Tensor, "batch heads count length dim"]) -> Float[Tensor, "batch heads time dim"]:
        """Back to one row of tokens."""
        return x.flatten(2, 3)[:, :, : self.time]

    def near(self) -> Float[Tensor, "batch heads count length length"]:
        """What is left at token i (rows) of what was written at j ≤ i (columns) of the same chunk; 0 elsewhere."""
        return _left(self.total, self.segment, self.dtype)

    def from_start(self) -> Float[Tensor, "batch heads count length"]:
        """What is left at each token of the state before its chunk."""
        return _factor(self.total, self.segment == self.ends[..., :-1, None], self.dtype)

    def to_end(self) -> Float[Tensor, "batch heads count length"]:
        """What is left at the chunk's end of what was written at each token."""
        last = self.total[..., -1:]
        return _factor(last - self.total, self.segment == self.ends[..., 1:, None], self.dtype)

    def across(self) -> Float[Tensor, "batch heads count"]:
        """What is left at each chunk's end of the state before it."""
        return _factor(self.total[..., -1], self.ends[..., 1:] == self.ends[..., :-1], self.dtype)

    def far(self) -> Float[Tensor, "batch heads count+1 count+1"]:
        """What is left at the end of chunk i (rows) of the state at the end of chunk j ≤ i; index 0 is before all."""
        passed = F.pad(self.total[..., -1].cumsum(-1), (1, 0))
        return _left(passed, self.ends, self.dtype)


def _left(
    total: Float[Tensor, "... time"], segment: Int[Tensor, "... time"], dtype: torch.dtype
) -> Float[Tensor, "... time time"]:
    together = (segment[..., :, None] == segment[..., None, :]).tril()
    return _factor(total[..., :, None] - total[..., None, :], together, dtype)


def _factor(logarithm: Tensor, where: Bool[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """The exponential where ``where``, else 0; what could overflow is masked before."""
    return logarithm.to(dtype).masked_fill(~where, -torch.inf).exp()
