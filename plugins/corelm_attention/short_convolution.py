"""A causal convolution over the last few tokens, each channel on its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from corelm.kinds import Cost, LayerStep, ParameterInfo, SlotSpec, Work, declare, plain_cost
from corelm_attention.carrying import carried, carry, slot
from corelm_attention.segments import Segments, one_by_one

NAME = "convolution"
"""Of its slot."""


class ShortConvolution(nn.Module):
    """``silu(bias + Σ_j weight_j x_{t−j})`` over the last ``kernel`` tokens, as in Mamba (Gu & Dao, 2023, arXiv:2312.00752).

    Tokens before the first of a document count as zero, padding as if it weren't there: the tokens on both of its
    sides are neighbours. The slot holds the inputs of the last ``kernel − 1`` real tokens, zeros where they belong to
    another document. Computed in float32 or better.

    Args:
        channels: features, each with weights of its own.
        kernel: tokens that are seen, the token itself included.
        bias: whether there is a bias per channel.
    """

    def __init__(self, channels: int, kernel: int, *, bias: bool) -> None:
        super().__init__()
        self.channels, self.kernel = channels, kernel
        info = ParameterInfo("vector", fan_in=kernel)
        # The layout of a depthwise convolution: outputs, inputs per output, tokens from the oldest to the newest.
        self.weight = declare(self, "weight", (channels, 1, kernel), info)
        self.bias: nn.Parameter | None
        if bias:
            self.bias = declare(self, "bias", (channels,), ParameterInfo("bias", constant=0.0))
        else:
            self.register_parameter("bias", None)

    def cost(self, work: Work) -> Cost:
        """``2 · channels · kernel`` operations per token."""
        return plain_cost(self, work) + Cost(2 * self.channels * self.kernel * work.tokens)

    def slots(self) -> dict[str, SlotSpec]:
        """The last inputs."""
        return slot(NAME, self.kernel - 1, self.channels)

    def forward(
        self, x: Float[Tensor, "batch time channels"], step: LayerStep, where: Segments
    ) -> Float[Tensor, "batch time channels"]:
        """Convolve."""
        window = carried(step, NAME, x, self.kernel - 1, self.channels)
        x, segment = x.to(window.dtype), where.tokens
        valid = step.step.new_valid()
        if valid is None:
            real = None
        else:
            # Real tokens to the front, padding behind them.
            order = valid.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
            x, segment, real = _take(x, order), segment.gather(1, order), valid.sum(1)
        row = torch.cat((window, x), 1)
        owner = torch.cat((where.before[:, None].expand(-1, self.kernel - 1), segment), 1)
        carry(step, NAME, self._last(row, owner, where.tokens[:, -1:], real))
        y = F.silu(self._convolved(row, owner) if where.several else self._undivided(row))
        return y if valid is None else _take(y, order.argsort(dim=1))

    def reference(
        self, x: Float[Tensor, "batch time channels"], step: LayerStep
    ) -> Float[Tensor, "batch time channels"]:
        """The definition, token by token; zero at padding."""
        y = torch.zeros_like(x)
        for row in range(len(x)):
            seen: list[Tensor] = []
            for t, fresh in one_by_one(step, row):
                seen = [x[row, t], *(() if fresh else seen)][: self.kernel]
                total = torch.zeros_like(seen[0]) if self.bias is None else self.bias
                for lag, past in enumerate(seen):
                    total = total + self.weight[:, 0, self.kernel - 1 - lag] * past
                y[row, t] = total * torch.sigmoid(total)
        return y

    def _last(self, row: Tensor, owner: Tensor, current: Tensor, real: Int[Tensor, " batch"] | None) -> Tensor:
        """The inputs before the next token, of its document as far as is known."""
        if real is None:
            row, owner = row[:, row.shape[1] - self.kernel + 1 :], owner[:, owner.shape[1] - self.kernel + 1 :]
        else:
            place = real[:, None] + torch.arange(self.kernel - 1, device=row.device)
            row, owner = _take(row, place), owner.gather(1, place)
        return row.masked_fill((owner != current)[..., None], 0.0)

    def _undivided(self, row: Tensor) -> Tensor:
        """All of a row is one document."""
        # In two dimensions with channels last, the tokens stay where they are in memory; several times as fast on CPUs.
        image = row.transpose(1, 2).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        weight = self.weight.to(row.dtype).unsqueeze(2)
        bias = None if self.bias is None else self.bias.to(row.dtype)
        return F.conv2d(image, weight, bias, groups=self.channels).squeeze(2).transpose(1, 2)

    def _convolved(self, row: Tensor, owner: Tensor) -> Tensor:
        """Only tokens of the same document meet."""
        time = row.shape[1] - self.kernel + 1
        newest, weight = self.kernel - 1, self.weight.to(row.dtype)[:, 0]
        y = row[:, newest:] * weight[:, newest]
        for lag in range(newest):
            same = owner[:, lag : lag + time] == owner[:, newest:]
            y = torch.addcmul(y, row[:, lag : lag + time] * same[..., None], weight[:, lag])
        return y if self.bias is None else y + self.bias.to(row.dtype)


def _take(x: Float[Tensor, "batch time channels"], place: Int[Tensor, "batch chosen"]) -> Tensor:
    """The tokens at these places."""
    return x.gather(1, place[..., None].expand(-1, -1, x.shape[-1]))
