"""Gated linear attention: a recurrent mixer whose state has a fixed size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import (
    Attention,
    ComponentConfig,
    Cost,
    LayerContext,
    LayerStep,
    Linear,
    Norm,
    PositionGeometry,
    Problem,
    SlotSpec,
    Spec,
    Work,
    parameter_count,
    plain_cost,
    use,
)
from corelm_attention.carrying import carried, carry, slot, wide
from corelm_attention.scan import Tokens, cost, in_chunks, one_token
from corelm_attention.segments import Segments, one_by_one, segments


class GatedLinearAttention(Attention):
    """Linear attention with a data-dependent decay per head (Yang et al., 2023, arXiv:2312.06635).

    Per head, with the scalar decay of Mamba-2 (Dao & Gu, 2024, arXiv:2405.21060)::

        S_t = a_t S_{t−1} + k_t v_tᵀ        a_t = sigmoid(decay(x_t))^(1/temperature)
        o_t = S_tᵀ q_t / √head_dim          y = output(norm(o) · silu(gate(x)))

    Several tokens are computed in chunks in parallel, a single one by the recurrence; both give the same. The state
    is float32 or better. Padding neither writes to the state nor lets it decay; a new document starts from zero.
    """

    only_speed: ClassVar[frozenset[str]] = frozenset({"chunk"})

    class Config(ComponentConfig):
        """Options."""

        heads: int = Field(gt=0, description="Number of heads.")
        head_dim: int | None = Field(None, gt=0, description="Features of a head; default: dim / heads.")
        temperature: float = Field(16.0, gt=0, description="Slows the decay down: its root of this order is taken.")
        norm: Spec[Norm] = Field(use("rmsnorm"), description="Norm of every head's output.")
        chunk: int = Field(64, gt=0, description="Tokens that are mixed at once; changes speed, not results.")

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Rotation and scaling of queries; a state of fixed size."""
        return frozenset({"rotation", "query", "recurrent"})

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Heads must divide dim."""
        if config.head_dim is None and context.dim % config.heads:
            yield Problem(
                ("heads",),
                f"{config.heads} heads do not divide dim {context.dim}",
                "Choose heads that divide dim, or give head_dim.",
                "heads-do-not-divide-dim",
            )

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The size of a head that follows from ``dim``."""
        return config.model_copy(update={"head_dim": config.head_dim or context.dim // config.heads})

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """``5 · dim · heads · head_dim``, the decays' map with its bias, and the norm."""
        head_dim = cls.settled(config, layer).head_dim
        maps = config.heads * (5 * layer.dim * head_dim + layer.dim + 1)
        return maps + parameter_count(config.norm, head_dim)

    def cost(self, work: Work) -> Cost:
        """The maps, and per token and head ``2 · head_dim²`` to read the state; several tokens take what chunks do."""
        sizes = (self.heads, self.heads, self.head_dim, self.head_dim)
        return plain_cost(self, work) + cost(work, *sizes, self.config.chunk)

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.heads = config.heads
        self.head_dim = self.settled(config, layer).head_dim
        self.geometry = PositionGeometry(layer.dim, self.heads, self.head_dim, layer.context)
        width = self.heads * self.head_dim
        self.query = Linear(layer.dim, width)
        self.key = Linear(layer.dim, width)
        self.value = Linear(layer.dim, width)
        self.gate = Linear(layer.dim, width)
        self.decay = Linear(layer.dim, self.heads, bias=True)
        self.norm: Norm = config.norm.build(self.head_dim)
        self.output = Linear(width, layer.dim, residual=True)

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """One matrix per head."""
        return slot("state", self.heads, self.head_dim, self.head_dim)

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens."""
        tokens, where = self.tokens(x, step)
        state = carried(step, "state", x, self.heads, self.head_dim, self.head_dim)
        with torch.autocast(x.device.type, enabled=False):
            if x.shape[1] == 1:
                mixed, state = one_token(tokens, where, state)
            else:
                mixed, state = in_chunks(tokens, where, state, self.config.chunk)
        carry(step, "state", state)
        gate = F.silu(self.gate(x))
        normed = self.norm(mixed.transpose(1, 2)).flatten(2)
        return self.output(normed.to(gate.dtype) * gate)

    def reference(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """The recurrence of the docstring in float64, a head and a token at a time, without a stored state."""
        q, k = step.position.rotate(self._heads(self.query(x)), self._heads(self.key(x)))
        q, v = step.position.scale_query(q), self._heads(self.value(x))
        left = torch.sigmoid(self.decay(x)) ** (1 / self.config.temperature)
        mixed = x.new_zeros(*x.shape[:2], self.heads, self.head_dim)
        for row, head in torch.cartesian_prod(torch.arange(len(x)), torch.arange(self.heads)).tolist():
            state = x.new_zeros(self.head_dim, self.head_dim)
            for t, fresh in one_by_one(step, row):
                state = torch.outer(k[row, head, t], v[row, head, t]) + (0 if fresh else left[row, t, head] * state)
                mixed[row, t, head] = state.T @ q[row, head, t] / math.sqrt(self.head_dim)
        gate = self.gate(x)
        return self.output(self.norm(mixed).flatten(2) * gate * torch.sigmoid(gate))

    def tokens(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> tuple[Tokens, Segments]:
        """Queries, keys, values and decays of every token, in float32 or better, and where documents begin."""
        q, k, v = (self._heads(projection(x)) for projection in (self.query, self.key, self.value))
        q, k = step.position.rotate(q, k)
        q = step.position.scale_query(q)
        dtype = wide(x)
        decay = F.logsigmoid(self.decay(x).to(dtype)).transpose(1, 2) / self.config.temperature
        k = k.to(dtype)
        valid = step.step.new_valid()
        if valid is not None:
            real = valid[:, None]
            decay = decay.masked_fill(~real, 0.0)
            k = k.masked_fill(~real[..., None], 0.0)
        tokens = Tokens(q.to(dtype) * self.head_dim**-0.5, k, v.to(dtype), decay)
        return tokens, segments(step)

    def _heads(self, x: Tensor) -> Float[Tensor, "batch heads time head_dim"]:
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
