"""Softmax attention whose query heads share key and value heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import (
    Cost,
    Heads,
    LayerContext,
    LayerStep,
    Linear,
    Norm,
    ParameterInfo,
    PositionGeometry,
    Problem,
    SlotSpec,
    Spec,
    Work,
    declare,
    parameter_count,
    plain_cost,
    together,
)
from corelm_attention.softmax import SoftmaxAttention, SoftmaxConfig


class GroupedQueryAttention(SoftmaxAttention):
    """Softmax attention with shared key and value heads (Ainslie et al., 2023, arXiv:2305.13245).

    ``softmax(scale · q kᵀ) v`` per head. ``kv_heads = heads`` is multi-head attention (Vaswani et al., 2017,
    arXiv:1706.03762), ``kv_heads = 1`` multi-query attention (Shazeer, 2019, arXiv:1911.02150): query head h reads
    key and value head ``h // (heads / kv_heads)``.

    Order: project, norm the whole vector, split heads, norm per head, rotate, norm what is rotated, scale queries,
    store, score, cap, bias, mask, softmax (with the sink), mix, gate, project. Keys are stored rotated. A token that may
    look at nothing gives zero before the last projection.

    A sink is a learned score of nothing (OpenAI, 2025, arXiv:2508.10925): with it the mix is that of the softmax without
    it, times ``sigmoid(logsumexp(scores) − sink)``. The output gate multiplies each mixed feature by the sigmoid of a
    map of the token itself (Qiu et al., 2025, arXiv:2505.06708).
    """

    class Config(SoftmaxConfig):
        """Options."""

        kv_heads: int | None = Field(None, gt=0, description="Key and value heads; default: as many as heads.")
        head_dim: int | None = Field(None, gt=0, description="Features of a head; default: dim / heads.")
        qkv_bias: bool = Field(False, description="Whether the maps to queries, keys, values and gates have biases.")
        qk_norm: Spec[Norm] | None = Field(None, description="Norm of queries and of keys; none by default.")
        qk_norm_of: Literal["head", "vector", "rotated"] = Field(
            "head",
            description="What qk_norm norms: each head before its rotation, the vector of all heads before it is split "
            "(as in OLMo 2), or each head after its rotation (as in Llama 4).",
        )
        inverse_layer_scale: bool = Field(
            False, description="Whether the scale is divided by the number of the layer, from 1 (an option of GPT-2)."
        )
        softcap: float | None = Field(None, gt=0, description="Scores become softcap · tanh(score / softcap).")
        sinks: bool = Field(False, description="Whether each head has a learned score of looking at nothing.")
        output_gate: bool = Field(False, description="Whether what is mixed is gated by the token's own input.")

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """All position hooks, any mask; sinks and gates where there are some."""
        # Gains of single features, as most norms have them, do not commute with a rotation.
        absolute = config.qk_norm_of == "rotated"
        extra = {"sink": config.sinks, "gate": config.output_gate, "absolute": absolute}
        return super().offers(config) | {name for name, there in extra.items() if there}

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Heads must divide what they share."""
        if config.head_dim is None and context.dim % config.heads:
            yield Problem(
                ("heads",),
                f"{config.heads} heads do not divide dim {context.dim}",
                "Choose heads that divide dim, or give head_dim.",
                "heads-do-not-divide-dim",
            )
        if config.kv_heads is not None and config.heads % config.kv_heads:
            yield Problem(
                ("kv_heads",),
                f"{config.kv_heads} key and value heads do not divide {config.heads} query heads",
                "Choose kv_heads that divide heads.",
                "kv-heads-do-not-divide-heads",
            )
        if config.qk_norm is None and config.qk_norm_of != "head":
            yield Problem(
                ("qk_norm_of",),
                f"qk_norm_of is {config.qk_norm_of}, but there is no norm of queries and keys",
                "Give qk_norm, e.g. `qk_norm: rmsnorm`, or leave out qk_norm_of.",
                "qk-norm-of-without-qk-norm",
            )

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """Heads and scale that follow from the others."""
        head_dim = config.head_dim or context.dim // config.heads
        return config.model_copy(
            update={
                "kv_heads": config.kv_heads or config.heads,
                "head_dim": head_dim,
                "scale": config.scale or head_dim**-0.5,
            }
        )

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """``2 · dim · (heads + kv_heads) · head_dim``, and gates, biases, norms and sinks."""
        config = cls.settled(config, layer)
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        inward, whole = (2 if config.output_gate else 1) * width + 2 * kv_width, config.qk_norm_of == "vector"
        normed = (width, kv_width) if whole else (config.head_dim, config.head_dim)
        return (
            layer.dim * (inward + width + config.output_bias)
            + config.qkv_bias * inward
            + sum(parameter_count(config.qk_norm, features) for features in normed)
            + config.sinks * config.heads
        )

    def cost(self, work: Work) -> Cost:
        """The maps, and ``4 · heads · head_dim`` operations per pair of query and key; a sink is none of them."""
        return plain_cost(self, work) + Cost(4 * self.heads * self.head_dim * work.pairs)

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.heads = config.heads
        self.kv_heads = config.kv_heads or config.heads
        self.head_dim = config.head_dim or layer.dim // config.heads
        self.scale = config.scale or self.head_dim**-0.5
        if config.inverse_layer_scale:
            self.scale /= layer.index + 1
        self.geometry = PositionGeometry(layer.dim, self.heads, self.head_dim, layer.context)
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        # Three maps rather than one: adapters, quantizers, Muon and importers each see the matrix that the
        # literature names.
        self.query = Linear(layer.dim, width, bias=config.qkv_bias)
        self.key = Linear(layer.dim, kv_width, bias=config.qkv_bias)
        self.value = Linear(layer.dim, kv_width, bias=config.qkv_bias)
        self.gate = Linear(layer.dim, width, bias=config.qkv_bias) if config.output_gate else None
        self.output = Linear(width, layer.dim, bias=config.output_bias, residual=True)
        whole, norm = config.qk_norm_of == "vector", config.qk_norm
        self.query_norm: Norm | None = norm.build(width if whole else self.head_dim) if norm else None
        self.key_norm: Norm | None = norm.build(kv_width if whole else self.head_dim) if norm else None
        if config.sinks:
            declare(self, "sinks", (self.heads,), ParameterInfo("vector", constant=0.0))
        else:
            self.register_parameter("sinks", None)

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """Rotated keys, and values."""
        token = (self.kv_heads, self.head_dim)
        return {"kv": SlotSpec({"k": token, "v": token}, grows=True, window=window, widened=True)}

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens."""
        heads, keys = self.project(x, step), step.step.index
        if step.slots is not None:
            heads, keys = self.remember(heads, step.slots["kv"])
        return self.finish(self.mix(heads, step, keys), x)

    def project(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Heads:
        """Queries, keys and values of these tokens."""
        q, k, v = together(x, self.query, self.key, self.value)
        q, k = self._normed("vector", q, k)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in (q, k, v))
        q, k = self._normed("head", q, k)
        q, k = step.position.rotate(q.transpose(1, 2), k.transpose(1, 2))
        q, k = self._normed("rotated", q, k)
        q = step.position.scale_query(q)
        return Heads(q, k, v.transpose(1, 2), self.scale, self.config.softcap, self.sinks)

    def reference(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """The definition in float64, one query of one head at a time, without a stored state."""
        heads, index = self.project(x, step), step.step.index
        allowed, bias = step.mask.dense(index, index), step.position.scores(index, index)
        mixed = torch.zeros_like(heads.q)
        for row, head, t in torch.cartesian_prod(*map(torch.arange, heads.q.shape[:3])).tolist():
            of, scores = head // (self.heads // self.kv_heads), {}
            for key in allowed[row % len(allowed), 0, t].nonzero().flatten().tolist():
                score = self.scale * heads.q[row, head, t].dot(heads.k[row, of, key])
                if self.config.softcap is not None:
                    score = self.config.softcap * torch.tanh(score / self.config.softcap)
                scores[key] = score if bias is None else score + bias[row % len(bias), head, t, key]
            every = [*scores.values(), *([] if self.sinks is None else [self.sinks[head]])]
            for key, score in scores.items():
                share = 1 / sum(torch.exp(other - score) for other in every)
                mixed[row, head, t] += share * heads.v[row, of, key]
        y = mixed.transpose(1, 2).flatten(2)
        return self.output(y if self.gate is None else y * torch.sigmoid(self.gate(x)))

    def _normed(self, place: str, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, normed if this is the place."""
        if self.query_norm is None or self.key_norm is None or self.config.qk_norm_of != place:
            return q, k
        return self.query_norm(q), self.key_norm(k)

    def finish(
        self, mixed: Float[Tensor, "batch heads time head_dim"], x: Float[Tensor, "batch time dim"]
    ) -> Float[Tensor, "batch time dim"]:
        """Gate, and project."""
        y = mixed.transpose(1, 2).flatten(2)
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(x))
        y = self.output(y)
        return F.dropout(y, self.config.output_dropout) if self.training else y
