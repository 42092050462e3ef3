"""Softmax attention whose query heads share key and value heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import (
    Attention,
    ComponentConfig,
    LayerContext,
    LayerStep,
    Linear,
    Norm,
    PositionGeometry,
    Problem,
    SlotSpec,
    Spec,
)
from corelm_attention.kernels import attend, choose


class GroupedQueryAttention(Attention):
    """Softmax attention with shared key and value heads (Ainslie et al., 2023, arXiv:2305.13245).

    ``softmax(scale · q kᵀ) v`` per head. ``kv_heads = heads`` is multi-head attention (Vaswani et al., 2017,
    arXiv:1706.03762), ``kv_heads = 1`` multi-query attention (Shazeer, 2019, arXiv:1911.02150): query head h reads
    key and value head ``h // (heads / kv_heads)``.

    Order: project, norm per head, rotate, scale queries, store, score, cap, bias, mask, softmax, mix, project.
    Keys are stored rotated. A token that may look at nothing gives zero before the last projection.
    """

    class Config(ComponentConfig):
        """Options."""

        heads: int = Field(gt=0, description="Query heads.")
        kv_heads: int | None = Field(None, gt=0, description="Key and value heads; default: as many as heads.")
        head_dim: int | None = Field(None, gt=0, description="Features of a head; default: dim / heads.")
        qkv_bias: bool = Field(False, description="Whether the maps to queries, keys and values have biases.")
        output_bias: bool = Field(False, description="Whether the last map has a bias.")
        qk_norm: Spec[Norm] | None = Field(None, description="Norm of every query and key head; none by default.")
        scale: float | None = Field(None, gt=0, description="Factor of the scores; default: 1/√head_dim.")
        softcap: float | None = Field(None, gt=0, description="Scores become softcap · tanh(score / softcap).")
        dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight.")
        output_dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an output feature.")

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """All position hooks, and any mask."""
        return frozenset({"rotation", "query", "scores", "mask"})

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

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.heads = config.heads
        self.kv_heads = config.kv_heads or config.heads
        self.head_dim = config.head_dim or layer.dim // config.heads
        self.scale = config.scale or self.head_dim**-0.5
        self.geometry = PositionGeometry(layer.dim, self.heads, self.head_dim, layer.context)
        # Three maps rather than one: adapters, quantizers, Muon and importers each see the matrix that the
        # literature names.
        self.query = Linear(layer.dim, self.heads * self.head_dim, bias=config.qkv_bias)
        self.key = Linear(layer.dim, self.kv_heads * self.head_dim, bias=config.qkv_bias)
        self.value = Linear(layer.dim, self.kv_heads * self.head_dim, bias=config.qkv_bias)
        self.output = Linear(self.heads * self.head_dim, layer.dim, bias=config.output_bias, residual=True)
        self.query_norm: Norm | None = config.qk_norm.build(self.head_dim) if config.qk_norm else None
        self.key_norm: Norm | None = config.qk_norm.build(self.head_dim) if config.qk_norm else None

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """Rotated keys, and values."""
        token = (self.kv_heads, self.head_dim)
        return {"kv": SlotSpec({"k": token, "v": token}, grows=True, window=window)}

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens."""
        batch, time, _ = x.shape
        q = self.query(x).view(batch, time, self.heads, self.head_dim)
        k = self.key(x).view(batch, time, self.kv_heads, self.head_dim)
        v = self.value(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = step.position.rotate(q.transpose(1, 2), k.transpose(1, 2))
        q = step.position.scale_query(q)

        query_index = key_index = step.step.index
        if step.slots is not None:
            stored = step.slots["kv"].update(k=k, v=v)
            k, v, key_index = stored.tensors["k"].to(q.dtype), stored.tensors["v"].to(q.dtype), stored.index
        bias = step.position.scores(query_index, key_index)
        kernel = self.kernel(q, k, plain=step.mask.plain, biased=bias is not None)
        # Without padding, documents or windows the newest token sees all there is.
        everything = step.mask.plain and (kernel == "sdpa-causal" or time == 1)
        y = attend(
            kernel,
            q,
            k,
            v,
            mask=None if everything else step.mask.dense(query_index, key_index),
            bias=bias,
            scale=self.scale,
            softcap=self.config.softcap,
            dropout=self.config.dropout if self.training else 0.0,
        )
        y = self.output(y.transpose(1, 2).reshape(batch, time, self.heads * self.head_dim))
        return F.dropout(y, self.config.output_dropout, self.training)

    def kernel(self, q: Tensor, k: Tensor, *, plain: bool, biased: bool) -> str:
        """Name of the kernel that is taken for these queries and keys; see ``corelm_attention.kernels``."""
        return choose(
            q,
            k,
            plain=plain,
            biased=biased,
            capped=self.config.softcap is not None,
            dropout=self.training and self.config.dropout > 0,
            backward=torch.is_grad_enabled() and q.requires_grad,
        )
