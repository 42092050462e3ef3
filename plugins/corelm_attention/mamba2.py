"""Mamba-2: a selective state space model as a recurrent mixer."""

from __future__ import annotations

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
from corelm_attention.gated_norm import GatedNorm
from corelm_attention.scan import Tokens, cost, in_chunks, one_token
from corelm_attention.segments import one_by_one, segments
from corelm_attention.short_convolution import ShortConvolution
from corelm_attention.time_constants import log_rates, step_biases

EXPANSION = 2
"""Width of all heads, in multiples of dim, where the size of a head is not given."""
FIRST_STEPS = (0.001, 0.1)
"""Between these the steps of the heads begin."""


class Mamba2(Attention):
    """State space model with one decay per head (Dao & Gu, 2024, arXiv:2405.21060).

    In the words of linear attention, its dual: values x, keys B and queries C pass a short causal convolution with
    silu; keys and queries are shared by the heads of a group. Per head::

        δ_t = clamp(softplus(time_step(x_t) + step_bias), least_step, most_step)        a_t = exp(−exp(log_rate) δ_t)
        S_t = a_t S_{t−1} + k_t (δ_t v_t)ᵀ        o_t = S_tᵀ q_t + skip · v_t
        y = output(weight · rms_norm(o · silu(gate(x))))

    with the mean square of the norm over each group's heads. In published checkpoints ``gate`` is z,
    ``time_step`` dt, ``log_rate`` A_log, ``step_bias`` dt_bias and ``skip`` D; the convolution is over [x | B |
    C]. Steps are clamped in every call; transformers does so in chunks, and not where a single token goes on from
    a state. Several tokens are computed in chunks, a single one by the recurrence; both give the same. The state
    is float32 or better. Padding changes nothing; a new document starts from zero, and the convolution doesn't
    look back across its start. Position schemes may turn queries and keys after the convolution and scale
    queries.
    """

    only_speed: ClassVar[frozenset[str]] = frozenset({"chunk"})

    class Config(ComponentConfig):
        """Options."""

        heads: int = Field(gt=0, description="Number of heads.")
        head_dim: int | None = Field(None, gt=0, description="Features of a head; default: 2 · dim / heads.")
        state_size: int = Field(128, gt=0, description="Features of keys and queries.")
        groups: int = Field(1, gt=0, description="Groups of heads that share keys and queries.")
        kernel: int = Field(4, gt=0, description="Tokens that the convolution sees, the token itself included.")
        convolution_bias: bool = Field(True, description="Whether the convolution has a bias per channel.")
        bias: bool = Field(False, description="Whether the maps into and out of the mixer have a bias.")
        least_step: float = Field(0.0, ge=0, description="Smallest step δ.")
        most_step: float | None = Field(None, gt=0, description="Largest step δ; none by default.")
        eps: float = Field(1e-5, gt=0, lt=1, description="Added to the mean square in the norm of the output.")
        chunk: int = Field(64, gt=0, description="Tokens that are mixed at once; changes speed, not results.")

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Rotation and scaling of queries; a state of fixed size."""
        return frozenset({"rotation", "query", "recurrent"})

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Groups must divide heads, heads the width; steps need room."""
        if config.heads % config.groups:
            yield Problem(
                ("groups",),
                f"{config.groups} groups do not divide {config.heads} heads",
                "Choose groups that divide heads.",
                "groups-do-not-divide-heads",
            )
        if config.head_dim is None and EXPANSION * context.dim % config.heads:
            yield Problem(
                ("heads",),
                f"{config.heads} heads do not divide {EXPANSION} · dim = {EXPANSION * context.dim}",
                f"Choose heads that divide {EXPANSION} · dim, or give head_dim.",
                "heads-do-not-divide-dim",
            )
        if config.most_step is not None and config.least_step >= config.most_step:
            yield Problem(
                ("least_step",),
                f"the smallest step {config.least_step} is not below the largest, {config.most_step}",
                "Leave out one of the two, or give least_step below most_step.",
                "no-room-for-steps",
            )

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The size of a head that follows from ``dim``."""
        head_dim = config.head_dim or EXPANSION * context.dim // config.heads
        return config.model_copy(update={"head_dim": head_dim})

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """``dim · (3 · width + 2 · groups · state_size + heads)``, the convolution's, and vectors."""
        width = config.heads * cls.settled(config, layer).head_dim
        channels = width + 2 * config.groups * config.state_size
        inward = width + channels + config.heads
        return (
            layer.dim * (inward + width)
            + config.bias * (inward + layer.dim)
            + channels * (config.kernel + config.convolution_bias)
            + 3 * config.heads
            + width
        )

    def cost(self, work: Work) -> Cost:
        """The maps, the convolution, and per token and head ``2 · state_size · head_dim`` to read the state.

        Several tokens at once take what their chunks do: pairs of tokens inside, states written and read between.
        """
        sizes = (self.groups, self.heads, self.state_size, self.head_dim)
        return plain_cost(self, work) + cost(work, *sizes, self.config.chunk)

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.heads, self.groups, self.state_size = config.heads, config.groups, config.state_size
        self.head_dim = config.head_dim or EXPANSION * layer.dim // self.heads
        self.geometry = PositionGeometry(layer.dim, self.groups, self.state_size, layer.context)
        self.width, self.keys = self.heads * self.head_dim, self.groups * self.state_size
        self.gate = Linear(layer.dim, self.width, bias=config.bias)
        self.value = Linear(layer.dim, self.width, bias=config.bias)
        self.key = Linear(layer.dim, self.keys, bias=config.bias)
        self.query = Linear(layer.dim, self.keys, bias=config.bias)
        self.time_step = Linear(layer.dim, self.heads, bias=config.bias)
        channels = self.width + 2 * self.keys
        self.convolution = ShortConvolution(channels, config.kernel, bias=config.convolution_bias)
        rates = ParameterInfo("vector", constant=log_rates(self.heads))
        self.log_rate = declare(self, "log_rate", (self.heads,), rates)
        steps = ParameterInfo("bias", constant=step_biases(self.heads, *self._first_steps()))
        self.step_bias = declare(self, "step_bias", (self.heads,), steps)
        self.skip = declare(self, "skip", (self.heads,), ParameterInfo("vector", constant=1.0))
        self.norm = GatedNorm(self.width, eps=config.eps, gate_first=True, groups=self.groups)
        self.output = Linear(self.width, layer.dim, bias=config.bias, residual=True)

    def _first_steps(self) -> tuple[float, float]:
        """Where steps begin: as usual, as far as the limits allow; beyond them they couldn't learn."""
        least, most = self.config.least_step, self.config.most_step or float("inf")
        low, high = (min(max(step, least), most) for step in FIRST_STEPS)
        return low, high

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """The convolution's last inputs, and one matrix per head."""
        return {**self.convolution.slots(), **slot("state", self.heads, self.state_size, self.head_dim)}

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens."""
        where = segments(step)
        mixed = torch.cat((self.value(x), self.key(x), self.query(x)), -1)
        steps, gate = self.time_step(x), self.gate(x)
        state = carried(step, "state", x, self.heads, self.state_size, self.head_dim)
        with torch.autocast(x.device.type, enabled=False):
            mixed = self.convolution(mixed, step, where)
            v, k, q = mixed.split((self.width, self.keys, self.keys), -1)
            v = v.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
            tokens = self._tokens(q, k, v, steps.to(v.dtype), step)
            if x.shape[1] == 1:
                y, state = one_token(tokens, where, state)
            else:
                y, state = in_chunks(tokens, where, state, self.config.chunk)
            carry(step, "state", state)
            y = y + self.skip.to(v.dtype)[:, None, None] * v
            y = self.norm(y.transpose(1, 2).flatten(2), gate)
        return self.output(y)

    def reference(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """The recurrence of the docstring in float64, a head and a token at a time, without a stored state."""
        mixed = self.convolution.reference(torch.cat((self.value(x), self.key(x), self.query(x)), -1), step)
        v, k, q = mixed.split((self.width, self.keys, self.keys), -1)
        k, q = (t.unflatten(-1, (-1, self.state_size)).transpose(1, 2) for t in (k, q))
        q, k = step.position.rotate(q, k)
        q, v = step.position.scale_query(q), v.unflatten(-1, (-1, self.head_dim))
        steps = (1 + (self.time_step(x) + self.step_bias).exp()).log()
        steps = steps.clamp(self.config.least_step, self.config.most_step)
        y = torch.zeros_like(v)
        for row, head in torch.cartesian_prod(torch.arange(len(x)), torch.arange(self.heads)).tolist():
            state, of = x.new_zeros(self.state_size, self.head_dim), head // (self.heads // self.groups)
            for t, fresh in one_by_one(step, row):
                length, value = steps[row, t, head], v[row, t, head]
                left = 0 if fresh else torch.exp(-self.log_rate[head].exp() * length)
                state = left * state + torch.outer(k[row, of, t], length * value)
                y[row, t, head] = state.T @ q[row, of, t] + self.skip[head] * value
        gated = (y.flatten(2) * self.gate(x) * torch.sigmoid(self.gate(x))).unflatten(-1, (self.groups, -1))
        size = (gated.square().mean(-1, keepdim=True) + self.config.eps).sqrt()
        return self.output(self.norm.weight * (gated / size).flatten(-2))

    def _tokens(self, q: Tensor, k: Tensor, v: Tensor, steps: Tensor, step: LayerStep) -> Tokens:
        """What the recurrence reads; the step of padding is zero, so that it neither writes nor decays."""
        q, k = (t.unflatten(-1, (self.groups, self.state_size)).transpose(1, 2) for t in (q, k))
        q, k = step.position.rotate(q, k)
        q = step.position.scale_query(q)
        steps = F.softplus(steps + self.step_bias.to(v.dtype)).transpose(1, 2)
        steps = steps.clamp(self.config.least_step, self.config.most_step)
        valid = step.step.new_valid()
        if valid is not None:
            steps = steps.masked_fill(~valid[:, None], 0.0)
        return Tokens(q, k, v * steps[..., None], -self.log_rate.to(v.dtype).exp()[:, None] * steps)
