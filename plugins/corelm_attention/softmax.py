"""What all softmax attention shares: options, the choice of a kernel, and mixing under the layer's mask and biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import Attention, ComponentConfig, Heads, LayerStep, Slot
from corelm_attention.kernels import attend, choose


class SoftmaxConfig(ComponentConfig):
    """Options of every softmax attention."""

    heads: int = Field(gt=0, description="Query heads.")
    scale: float | None = Field(None, gt=0, description="Factor of the scores; default: 1/√width of a query.")
    output_bias: bool = Field(False, description="Whether the last map has a bias.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight.")
    output_dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an output feature.")


class SoftmaxAttention(Attention):
    """Attention that mixes values by a softmax of scores; a token that may look at nothing mixes zero."""

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """All position hooks, and any mask."""
        return frozenset({"rotation", "query", "scores", "mask", "softmax"})

    def remember(self, heads: Heads, slot: Slot) -> tuple[Heads, Int[Tensor, " keys"]]:
        """Store keys and values; heads with all that are stored, and the indices of those.

        A single query is mixed in the type of the keys: a CPU stores those of 16 bits as float32, which it multiplies
        up to four times faster.
        """
        stored = slot.update(k=heads.k, v=heads.v)
        k, v = stored.tensors["k"], stored.tensors["v"]
        if heads.q.shape[2] > 1:
            k, v = k.to(heads.q.dtype), v.to(heads.q.dtype)
        return replace(heads, k=k, v=v), stored.index

    def mix(
        self, heads: Heads, step: LayerStep, keys: Int[Tensor, " keys"]
    ) -> Float[Tensor, "batch heads time value_dim"]:
        """Mix the values of tokens with these absolute indices, under the layer's mask and score biases."""
        queries = step.step.index
        bias = step.position.scores(queries, keys)
        kernel = self.kernel(heads, plain=step.mask.plain, biased=bias is not None)
        addend = blind = None
        if step.mask.plain and len(queries) == 1:  # the newest token sees all there is
            addend = None if bias is None else bias.to(heads.q.dtype)
        elif not step.mask.plain or bias is not None or kernel not in ("explicit", "sdpa-causal"):
            addend, blind = step.mask.addend(queries, keys, heads.q.dtype, bias)
        dropout = self.config.dropout if self.training else 0.0
        return attend(kernel, heads, addend=addend, blind=blind, causal=step.mask.causal, dropout=dropout)

    def kernel(self, heads: Heads, *, plain: bool, biased: bool) -> str:
        """Name of the kernel that is taken for these heads; see ``corelm_attention.kernels``."""
        return choose(
            heads,
            plain=plain,
            biased=biased,
            dropout=self.training and self.config.dropout > 0,
            backward=torch.is_grad_enabled() and heads.q.requires_grad,
        )
