"""Rotary position embedding."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Position, PositionGeometry
from corelm.kinds.position import Hook


class RotaryPosition(Position):
    """Rotates pairs of features by angles that grow with position (Su et al., 2021, arXiv:2104.09864).

    Pair j of ``rotated`` features turns by ``p · theta^(−2j/rotated)`` at position p, so that a score depends on the
    distance of query and key only. The first ``⌊fraction · head_dim⌋`` features (made even) are rotated, the rest
    pass through. ``pairing`` says which features are a pair: ``half``: j and j + rotated/2, ``interleaved``: 2j and
    2j + 1.

    Angles, cosines and sines are float64; products are taken in float32 or better and rounded once.
    """

    hooks: ClassVar[frozenset[Hook]] = frozenset({"rotation"})

    class Config(ComponentConfig):
        """Options."""

        theta: float = Field(10_000.0, gt=0, description="Base of the ladder of frequencies.")
        fraction: float = Field(1.0, gt=0, le=1, description="Part of each head that is rotated.")
        pairing: Literal["half", "interleaved"] = Field("half", description="Which features are rotated together.")

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        self.rotated = int(config.fraction * geometry.head_dim) // 2 * 2
        if self.rotated == 0:
            raise UserError(
                f"rope has nothing to rotate: {config.fraction:g} of {geometry.head_dim} features is no pair",
                remedy="Raise head_dim (fewer heads) or fraction.",
                code="nothing-to-rotate",
            )

    def frequencies(self, device: torch.device) -> Float[Tensor, " pairs"]:
        """Angle per position of every pair, float64."""
        pair = torch.arange(0, self.rotated, 2, dtype=torch.float64, device=device)
        return torch.pow(self.config.theta, -pair / self.rotated)

    def prepare(self, positions: Int[Tensor, "batch time"]) -> _Turns:
        """Cosine and sine of every angle, once per forward for all layers."""
        if positions.stride(0) == 0:  # one row, expanded
            positions = positions[:1]
        angles = positions.to(torch.float64)[:, None, :, None] * self.frequencies(positions.device)
        return _Turns(angles.cos(), angles.sin())

    def rotate(self, q: Tensor, k: Tensor, prepared: _Turns) -> tuple[Tensor, Tensor]:
        """Turn queries and keys, ``(batch, heads, time, head_dim)`` each."""
        return self._turn(q, prepared), self._turn(k, prepared)

    def _turn(self, x: Float[Tensor, "batch heads time head_dim"], turns: _Turns) -> Tensor:
        cos, sin = turns.like(x)
        part, rest = x[..., : self.rotated], x[..., self.rotated :]
        if self.config.pairing == "half":
            a, b = part.chunk(2, dim=-1)
            turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        else:
            a, b = part[..., 0::2], part[..., 1::2]
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        turned = turned.to(x.dtype)
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


class _Turns:
    """Cosines and sines, converted at most once to the type that products need.

    Their shape is ``(rows, 1, time, pairs)``, rows being the batch size, or 1 when rows are alike.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self._converted = {torch.float64: (cos, sin)}

    def like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both, in float32 or the better type of ``x``."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        if dtype not in self._converted:
            cos, sin = self._converted[torch.float64]
            self._converted[dtype] = cos.to(dtype), sin.to(dtype)
        return self._converted[dtype]
