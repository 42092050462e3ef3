"""Rotary position embedding."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Ladder, Position, PositionGeometry, Scaling, Spec
from corelm.kinds.position import Hook


class RotaryPosition(Position):
    """Rotates pairs of features by angles that grow with position (Su et al., 2021, arXiv:2104.09864).

    Pair j of ``rotated`` features turns by ``p · theta^(−2j/rotated)`` at position p, so that a score depends on the
    distance of query and key only. The first ``⌊fraction · head_dim⌋`` features (made even) are rotated, the rest
    pass through. ``pairing`` says which features are a pair: ``half``: j and j + rotated/2, ``interleaved``: 2j and
    2j + 1. A ``scaling`` changes the frequencies, and may multiply the rotated features by a factor.

    Angles, cosines and sines are float64; products are taken in float32 or better and rounded once.
    """

    revision: ClassVar[int] = 2
    hooks: ClassVar[frozenset[Hook]] = frozenset({"rotation"})

    class Config(ComponentConfig):
        """Options."""

        theta: float = Field(10_000.0, gt=0, description="Base of the ladder of frequencies.")
        fraction: float = Field(1.0, gt=0, le=1, description="Part of each head that is rotated.")
        pairing: Literal["half", "interleaved"] = Field("half", description="Which features are rotated together.")
        scaling: Spec[Scaling] | None = Field(None, description="Frequencies for longer sequences; none by default.")

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.rotated = int(config.fraction * geometry.head_dim) // 2 * 2
        if self.rotated == 0:
            raise UserError(
                f"rope has nothing to rotate: {config.fraction:g} of {geometry.head_dim} features is no pair",
                remedy="Raise head_dim (fewer heads) or fraction.",
                code="nothing-to-rotate",
            )
        self.ladder = Ladder(config.theta, self.rotated, geometry.context)
        self.scaling: Scaling | None = config.scaling.build(self.ladder) if config.scaling else None
        if self.scaling is not None:
            self.attention_factor, self.constant_up_to = self.scaling.attention_factor, self.scaling.constant_up_to

    def prepare(
        self, positions: Int[Tensor, "batch time"], lengths: Int[Tensor, "batch time"] | None = None
    ) -> _Turns:
        """Cosine and sine of every angle, once per forward for all layers."""
        if positions.stride(0) == 0 and (lengths is None or lengths.stride(0) == 0):  # one row, expanded
            positions = positions[:1]
            lengths = None if lengths is None else lengths[:1]
        if self.scaling is None:
            frequencies = self.ladder.frequencies(positions.device)
        else:
            frequencies = self.scaling.frequencies(positions.device, lengths)
        angles = (positions.to(torch.float64)[..., None] * frequencies)[:, None]
        return _Turns(angles.cos() * self.attention_factor, angles.sin() * self.attention_factor, self.config.pairing)

    def rotate(self, q: Tensor, k: Tensor, prepared: _Turns) -> tuple[Tensor, Tensor]:
        """Turn queries and keys, ``(batch, heads, time, head_dim)`` each; the results are contiguous."""
        if q.shape[2] == 1 and not torch.is_grad_enabled():  # when a token is decoded, calls cost more than copies
            turned = prepared.turn(torch.cat((q, k), 1))
            return turned[:, : q.shape[1]], turned[:, q.shape[1] :]
        return prepared.turn(q), prepared.turn(k)

    def reference(
        self,
        q: Float[Tensor, "batch heads time head_dim"],
        positions: Int[Tensor, "batch time"],
        lengths: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """The definition, one pair of features of one token at a time."""
        turned, pairs = q.clone(), self.rotated // 2
        for row, t, j in torch.cartesian_prod(*map(torch.arange, (*positions.shape, pairs))).tolist():
            frequencies = self.ladder.frequencies()
            if self.scaling is not None:
                frequencies = self.scaling.frequencies(None, None if lengths is None else lengths[row, t, None, None])
            angle = int(positions[row, t]) * float(frequencies.flatten()[j])
            cos, sin = (f(angle) * self.attention_factor for f in (math.cos, math.sin))
            first, second = (j, j + pairs) if self.config.pairing == "half" else (2 * j, 2 * j + 1)
            a, b = q[row, :, t, first], q[row, :, t, second]
            turned[row, :, t, first], turned[row, :, t, second] = a * cos - b * sin, a * sin + b * cos
        return turned


class _Turns:
    """Cosines and sines, ``(rows, 1, time, pairs)``: rows is the batch size, or 1 when rows are alike."""

    def __init__(self, cos: Tensor, sin: Tensor, pairing: str) -> None:
        self.exact = cos, sin
        self.pairing = pairing
        self._converted: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def turn(self, x: Float[Tensor, "batch heads time head_dim"]) -> Tensor:
        """Rotate every pair of ``x``."""
        cos, sin = self._like(x)
        if torch.compiler.is_compiling():
            return _turned(x, cos, sin, self.pairing)
        if not torch.is_grad_enabled():
            return _Turn.forward(x, cos, sin, self.pairing)
        turned: Tensor = _Turn.apply(x, cos, sin, self.pairing)
        return turned

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The cosine of every rotated feature and the sine of every pair, in float32 or the better type of ``x``.

        They are converted at most once per forward.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        if dtype not in self._converted:
            cos, sin = self.exact[0].to(dtype), self.exact[1].to(dtype)
            wide = torch.cat((cos, cos), -1) if self.pairing == "half" else cos.repeat_interleave(2, -1)
            if torch.compiler.is_compiling():
                wide, sin = stored(wide), stored(sin)
            self._converted[dtype] = wide, sin
        return self._converted[dtype]


class _Turn(torch.autograd.Function):
    """The rotation, whose gradient is the rotation by the opposite angle.

    Left to autograd, ``(a cos − b sin, b cos + a sin)`` converts bfloat16 operands four times and keeps every product:
    5.3 against 3.1 ms for forward and backward of 16 × (8 + 2) heads × 256 tokens × 32 features on one core.
    """

    @staticmethod
    def forward(x: Tensor, cos: Tensor, sin: Tensor, pairing: str) -> Tensor:
        rotated = cos.shape[-1]
        # Attention asks for (batch, heads, time, head_dim) in this order; what follows is faster so, too.
        part = x[..., :rotated].contiguous().to(cos.dtype)
        turned = part * cos
        a, b = _pairs(part, pairing)
        first, second = _pairs(turned, pairing)
        first.addcmul_(b, sin, value=-1)
        second.addcmul_(a, sin)
        turned = turned.to(x.dtype)
        return torch.cat((turned, x[..., rotated:]), dim=-1) if rotated < x.shape[-1] else turned

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, str], output: Tensor) -> None:
        _, cos, sin, ctx.pairing = inputs
        ctx.save_for_backward(cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        turned: Tensor = _Turn.apply(gradients[0], cos, -sin, ctx.pairing)
        return turned, None, None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, pairing: str) -> Tensor:
    """The same without writing into views, which a compiler turns into copies."""
    rotated = cos.shape[-1]
    part = x[..., :rotated].to(cos.dtype)
    a, b = _pairs(part, pairing)
    if pairing == "half":
        other = torch.cat((-b, a), -1) * torch.cat((sin, sin), -1)
    else:
        other = (torch.stack((-b, a), -1) * sin[..., None]).flatten(-2)
    turned = (part * cos + other).to(x.dtype)
    return torch.cat((turned, x[..., rotated:]), dim=-1) if rotated < x.shape[-1] else turned


@torch.library.custom_op("corelm::stored", mutates_args=())
def stored(table: Tensor) -> Tensor:
    """The same table, which a compiler has to keep: else it takes the cosine again for every layer and head."""
    return table.clone()


@stored.register_fake
def _(table: Tensor) -> Tensor:
    return torch.empty_like(table)


def _pairs(x: Tensor, pairing: str) -> tuple[Tensor, Tensor]:
    """Views of the first and the second feature of every pair."""
    if pairing == "half":
        half = x.shape[-1] // 2
        return x[..., :half], x[..., half:]
    return x[..., 0::2], x[..., 1::2]
