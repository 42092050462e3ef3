"""Gated DeltaNet: a recurrent mixer that replaces what a key recalls."""

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
    ParameterInfo,
    PositionGeometry,
    Problem,
    SlotSpec,
    Work,
    declare,
    plain_cost,
)
from corelm_attention.carrying import carried, carry, slot
from corelm_attention.delta_rule import DeltaTokens, cost, in_chunks, one_token
from corelm_attention.gated_norm import GatedNorm
from corelm_attention.segments import one_by_one, segments
from corelm_attention.short_convolution import ShortConvolution
from corelm_attention.time_constants import log_rates, step_biases

EPSILON = 1e-6
"""Added to the sum of squares of queries and keys under the root."""


class GatedDelta(Attention):
    """Linear attention whose state is corrected, not only added to (Yang et al., 2024, arXiv:2412.06464).

    Queries, keys and values pass a short causal convolution with silu; queries and keys have length one. Per head::

        log a_t = −exp(log_rate) · softplus(decay(x_t) + step_bias)        β_t = sigmoid(strength(x_t))
        S_t = a_t S_{t−1} + β_t k_t (v_t − a_t S_{t−1}ᵀ k_t)ᵀ        o_t = S_tᵀ q_t / √key_dim
        y = output(weight · rms_norm(o) · silu(gate(x)))

    Equally many heads in a row share the queries and keys of a key head. In published checkpoints ``decay`` is a,
    ``strength`` b, ``gate`` z, ``log_rate`` A_log and ``step_bias`` dt_bias; the convolution is over [q | k | v].
    Several tokens are computed in chunks, a single one by the recurrence; both give the same. The state is float32
    or better. Padding changes nothing; a new document starts from zero, and the convolution doesn't look back
    across its start. Position schemes may turn queries and keys after the convolution and scale queries.
    """

    only_speed: ClassVar[frozenset[str]] = frozenset({"chunk"})

    class Config(ComponentConfig):
        """Options."""

        heads: int = Field(gt=0, description="Number of heads, each with a state and values of its own.")
        key_heads: int | None = Field(None, gt=0, description="Heads of queries and keys; default: heads.")
        key_dim: int | None = Field(None, gt=0, description="Features of a key; default: dim / key heads.")
        value_dim: int | None = Field(None, gt=0, description="Features of a head's value; default: those of a key.")
        kernel: int = Field(4, gt=0, description="Tokens that the convolution sees, the token itself included.")
        eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square in the norm of the output.")
        chunk: int = Field(64, gt=0, description="Tokens that are mixed at once; changes speed, not results.")

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Rotation and scaling of queries; a state of fixed size."""
        return frozenset({"rotation", "query", "recurrent"})

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Key heads must divide heads, and dim where the size of a key is left to them."""
        key_heads = config.key_heads or config.heads
        if config.heads % key_heads:
            yield Problem(
                ("key_heads",),
                f"{key_heads} key heads do not divide {config.heads} heads",
                "Choose key_heads that divide heads.",
                "key-heads-do-not-divide-heads",
            )
        if config.key_dim is None and context.dim % key_heads:
            yield Problem(
                ("key_heads" if config.key_heads else "heads",),
                f"{key_heads} key heads do not divide dim {context.dim}",
                "Choose key heads that divide dim, or give key_dim.",
                "heads-do-not-divide-dim",
            )

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """Heads and sizes that follow from the others."""
        key_heads = config.key_heads or config.heads
        key_dim = config.key_dim or context.dim // key_heads
        sizes = {"key_heads": key_heads, "key_dim": key_dim, "value_dim": config.value_dim or key_dim}
        return config.model_copy(update=sizes)

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """``dim · (2 · keys + 3 · values + 2 · heads)``, the convolution's, and vectors."""
        config = cls.settled(config, layer)
        keys, values = config.key_heads * config.key_dim, config.heads * config.value_dim
        maps = layer.dim * (2 * keys + 3 * values + 2 * config.heads)
        return maps + (2 * keys + values) * config.kernel + 2 * config.heads + config.value_dim

    def cost(self, work: Work) -> Cost:
        """The maps, the convolution, and per token and head ``4 · key_dim · value_dim`` to correct and read the state.

        Several tokens at once take what their chunks do: pairs of tokens and a triangular system inside, three
        products with a state between.
        """
        sizes = (self.key_heads, self.heads, self.key_dim, self.value_dim)
        return plain_cost(self, work) + cost(work, *sizes, self.config.chunk)

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.heads, self.key_heads = config.heads, config.key_heads or config.heads
        self.key_dim = config.key_dim or layer.dim // self.key_heads
        self.value_dim = config.value_dim or self.key_dim
        self.geometry = PositionGeometry(layer.dim, self.key_heads, self.key_dim, layer.context)
        keys, values = self.key_heads * self.key_dim, self.heads * self.value_dim
        self.query, self.key = Linear(layer.dim, keys), Linear(layer.dim, keys)
        self.value, self.gate = Linear(layer.dim, values), Linear(layer.dim, values)
        self.decay, self.strength = Linear(layer.dim, self.heads), Linear(layer.dim, self.heads)
        self.convolution = ShortConvolution(2 * keys + values, config.kernel, bias=False)
        rates = ParameterInfo("vector", constant=log_rates(self.heads))
        self.log_rate = declare(self, "log_rate", (self.heads,), rates)
        steps = ParameterInfo("bias", constant=step_biases(self.heads))
        self.step_bias = declare(self, "step_bias", (self.heads,), steps)
        self.norm = GatedNorm(self.value_dim, eps=config.eps, gate_first=False)
        self.output = Linear(values, layer.dim, residual=True)

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """The convolution's last inputs, and one matrix per head."""
        return {**self.convolution.slots(), **slot("state", self.heads, self.key_dim, self.value_dim)}

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens."""
        where = segments(step)
        mixed = torch.cat((self.query(x), self.key(x), self.value(x)), -1)
        decay, strength, gate = self.decay(x), self.strength(x), self.gate(x)
        state = carried(step, "state", x, self.heads, self.key_dim, self.value_dim)
        with torch.autocast(x.device.type, enabled=False):
            tokens = self._tokens(self.convolution(mixed, step, where), decay, strength, step)
            if x.shape[1] == 1:
                y, state = one_token(tokens, where, state)
            else:
                y, state = in_chunks(tokens, where, state, self.config.chunk)
            carry(step, "state", state)
            y = self.norm(y.transpose(1, 2), gate.unflatten(-1, (self.heads, self.value_dim))).flatten(2)
        return self.output(y)

    def reference(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """The recurrence of the docstring in float64, a head and a token at a time, without a stored state."""
        keys = self.key_heads * self.key_dim
        mixed = self.convolution.reference(torch.cat((self.query(x), self.key(x), self.value(x)), -1), step)
        q, k = (t.unflatten(-1, (-1, self.key_dim)).transpose(1, 2) for t in mixed[..., : 2 * keys].chunk(2, -1))
        q, k = step.position.rotate(q, k)
        q, k = (t / (t.square().sum(-1, keepdim=True) + EPSILON).sqrt() for t in (q, k))
        q, v = step.position.scale_query(q), mixed[..., 2 * keys :].unflatten(-1, (-1, self.value_dim))
        left = (-self.log_rate.exp() * (1 + (self.decay(x) + self.step_bias).exp()).log()).exp()
        strength, gate = torch.sigmoid(self.strength(x)), self.gate(x).unflatten(-1, (-1, self.value_dim))
        y = torch.zeros_like(v)
        for row, head in torch.cartesian_prod(torch.arange(len(x)), torch.arange(self.heads)).tolist():
            state, of = x.new_zeros(self.key_dim, self.value_dim), head // (self.heads // self.key_heads)
            for t, fresh in one_by_one(step, row):
                key = k[row, of, t]
                state = torch.zeros_like(state) if fresh else left[row, t, head] * state
                state = state + strength[row, t, head] * torch.outer(key, v[row, t, head] - state.T @ key)
                o = state.T @ q[row, of, t] / math.sqrt(self.key_dim)
                o = self.norm.weight * o / (o.square().mean() + self.config.eps).sqrt()
                y[row, t, head] = o * gate[row, t, head] * torch.sigmoid(gate[row, t, head])
        return self.output(y.flatten(2))

    def _tokens(self, mixed: Tensor, decay: Tensor, strength: Tensor, step: LayerStep) -> DeltaTokens:
        """What the recurrence reads, in float32 or better; padding neither writes nor decays."""
        keys = self.key_heads * self.key_dim
        q, k, v = mixed.split((keys, keys, self.heads * self.value_dim), -1)
        q, k = (t.unflatten(-1, (self.key_heads, self.key_dim)).transpose(1, 2) for t in (q, k))
        q, k = step.position.rotate(q, k)
        q = step.position.scale_query(_unit(q)) * self.key_dim**-0.5
        dtype = mixed.dtype
        steps = F.softplus(decay.to(dtype) + self.step_bias.to(dtype))
        decay = (-self.log_rate.to(dtype).exp() * steps).transpose(1, 2)
        strength = strength.to(dtype).sigmoid().transpose(1, 2)
        valid = step.step.new_valid()
        if valid is not None:
            decay, strength = (t.masked_fill(~valid[:, None], 0.0) for t in (decay, strength))
        v = v.unflatten(-1, (self.heads, self.value_dim)).transpose(1, 2)
        return DeltaTokens(q, _unit(k), v, decay, strength)


def _unit(x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
    """Vectors of length one."""
    return x * (x.square().sum(-1, keepdim=True) + EPSILON).rsqrt()
