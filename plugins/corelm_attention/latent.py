"""Latent attention: keys and values of all heads are read out of one short vector per token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from corelm.kinds import (
    Cost,
    Heads,
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
from corelm_attention.softmax import SoftmaxAttention, SoftmaxConfig


class LatentAttention(SoftmaxAttention):
    """Multi-head latent attention: one short vector per token is all that is stored (DeepSeek-AI, 2024, arXiv:2405.04434).

    ::

        c = norm(latent(x))                                one vector of kv_lora_rank for all heads
        q = [query part ‖ rotated query part]              of each head, from x or from norm(query_down(x))
        k = [key(c) of the head ‖ rotated rotary_key(x)]   the rotated part is the same for all heads
        v = value(c) of the head                           y = output(softmax(scale · q kᵀ) v)

    Positions act on the rotated parts alone; ``scale`` is 1/√(qk_nope_head_dim + qk_rope_head_dim) by default. c and the
    rotated key are stored. A call that adds few tokens to many does not read keys and values out again: it carries queries
    into the space of c, mixes there, and carries the result out (section 2.1.2 of the paper); the result is the same.
    """

    class Config(SoftmaxConfig):
        """Options."""

        q_lora_rank: int | None = Field(
            None, gt=0, description="Width of the vector that queries are read out of; default: they are read of x."
        )
        kv_lora_rank: int = Field(gt=0, description="Width of the vector that keys and values are read out of.")
        qk_nope_head_dim: int = Field(gt=0, description="Features of a query or key that have no position.")
        qk_rope_head_dim: int = Field(gt=0, description="Features of a query or key that positions act on.")
        v_head_dim: int = Field(gt=0, description="Features of a value.")
        down_bias: bool = Field(
            False, description="Whether the maps to the short vectors and rotated keys have biases."
        )
        norm: Spec[Norm] = Field(use("rmsnorm"), description="Norm of the short vectors.")

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Less its mean, a single feature is nothing."""
        for name in ("kv_lora_rank", "q_lora_rank"):
            if config.norm.part.centred and getattr(config, name) == 1:
                yield Problem(
                    (name,),
                    f"the norm {config.norm.name} takes the mean away, which leaves nothing of one feature",
                    f"Raise {name}, or take a norm such as rmsnorm.",
                    "centred-single-feature",
                )

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The scale that follows from the widths."""
        width = config.qk_nope_head_dim + config.qk_rope_head_dim
        return config.model_copy(update={"scale": config.scale or width**-0.5})

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """``dim · (q_rank + kv_rank + rotated) + q_rank · queries + kv_rank · (keys + values) + values · dim``."""
        rank, q_rank, rotated = config.kv_lora_rank, config.q_lora_rank, config.qk_rope_head_dim
        queries = config.heads * (config.qk_nope_head_dim + rotated)
        keys, values = config.heads * config.qk_nope_head_dim, config.heads * config.v_head_dim
        short = rank + rotated + (q_rank or 0)
        return (
            (layer.dim + config.down_bias) * short
            + (q_rank or layer.dim) * queries
            + rank * (keys + values)
            + (values + config.output_bias) * layer.dim
            + sum(parameter_count(config.norm, features) for features in (rank, q_rank) if features)
        )

    def cost(self, work: Work) -> Cost:
        """The maps, and ``2 · heads · (key + value)`` operations per pair of query and key.

        What is stored is read out again in every call, or queries and results are carried to where it is: then keys
        and values are as wide as what is stored. To carry one token takes what reading it out takes.
        """
        config, heads, rank = self.config, self.config.heads, self.config.kv_lora_rank
        if work.past is not None and self.absorbs(work.time, work.keys):
            wide, again = 2 * rank + config.qk_rope_head_dim, 0
        else:
            wide = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
            again = work.batch * (work.keys - work.time)
        read_out = rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
        return plain_cost(self, work) + Cost(2 * (heads * wide * work.pairs + again * read_out))

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        heads, rank, rotated = config.heads, config.kv_lora_rank, config.qk_rope_head_dim
        width = config.qk_nope_head_dim + rotated
        self.scale = config.scale or width**-0.5
        self.geometry = PositionGeometry(layer.dim, heads, rotated, layer.context)
        self.query_down: Linear | None = None
        self.query_norm: Norm | None = None
        if config.q_lora_rank is not None:
            self.query_down = Linear(layer.dim, config.q_lora_rank, bias=config.down_bias)
            self.query_norm = config.norm.build(config.q_lora_rank)
        self.query = Linear(config.q_lora_rank or layer.dim, heads * width)
        self.latent = Linear(layer.dim, rank, bias=config.down_bias)
        self.latent_norm: Norm = config.norm.build(rank)
        self.rotary_key = Linear(layer.dim, rotated, bias=config.down_bias)
        self.key = Linear(rank, heads * config.qk_nope_head_dim)
        self.value = Linear(rank, heads * config.v_head_dim)
        self.output = Linear(heads * config.v_head_dim, layer.dim, bias=config.output_bias, residual=True)

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """The short vector and the rotated key, next to each other."""
        token = (1, self.config.kv_lora_rank + self.config.qk_rope_head_dim)
        return {"latent": SlotSpec({"latent": token}, grows=True, window=window)}

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens."""
        q, latent = self._tokens(x, step)
        if step.slots is None:
            return self.finish(self.mix(self.expanded(q, latent), step, step.step.index), x)
        stored = step.slots["latent"].update(latent=latent)
        latent = stored.tensors["latent"].to(q.dtype)
        if not self.absorbs(q.shape[2], latent.shape[2]):
            return self.finish(self.mix(self.expanded(q, latent), step, stored.index), x)
        mixed = self.mix(self.absorbed(q, latent), step, stored.index)
        return self.finish(mixed @ self._matrix(self.value, like=q).transpose(-1, -2), x)

    def project(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Heads:
        """Queries, keys and values of these tokens."""
        return self.expanded(*self._tokens(x, step))

    def _tokens(
        self, x: Tensor, step: LayerStep
    ) -> tuple[Float[Tensor, "batch heads time width"], Float[Tensor, "batch 1 time stored"]]:
        """Queries, and what is stored of these tokens."""
        short = x
        if self.query_down is not None and self.query_norm is not None:
            short = self.query_norm(self.query_down(x))
        q = self.query(short).unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
        plain, turned = self._parts(q)
        turned, key = step.position.rotate(turned, self.rotary_key(x)[:, None])
        q = step.position.scale_query(torch.cat((plain, turned), -1))
        return q, torch.cat((self.latent_norm(self.latent(x))[:, None], key), -1)

    def _parts(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Queries without position, and those that positions act on."""
        plain, turned = q.split((self.config.qk_nope_head_dim, self.config.qk_rope_head_dim), -1)
        return plain, turned

    def expanded(
        self, q: Float[Tensor, "batch heads time width"], latent: Float[Tensor, "batch 1 keys stored"]
    ) -> Heads:
        """Keys and values of every head, read out of what is stored."""
        heads, rank = self.config.heads, self.config.kv_lora_rank
        c, turned = latent[:, 0, :, :rank], latent[..., rank:].expand(-1, heads, -1, -1)
        k, v = (part(c).unflatten(-1, (heads, -1)).transpose(1, 2) for part in (self.key, self.value))
        return Heads(q, torch.cat((k, turned), -1), v, self.scale)

    def absorbed(
        self, q: Float[Tensor, "batch heads time width"], latent: Float[Tensor, "batch 1 keys stored"]
    ) -> Heads:
        """Queries in the space of what is stored, which is then the one key of all heads: ``q · (W c) = (Wᵀ q) · c``.

        The values are the short vectors; what is mixed of them has still to be read out.
        """
        plain, turned = self._parts(q)
        q = torch.cat((plain @ self._matrix(self.key, like=q), turned), -1)
        return Heads(q, latent, latent[..., : self.config.kv_lora_rank], self.scale)

    def absorbs(self, time: int, keys: int) -> bool:
        """Whether ``time`` queries take fewer products in the space of the short vectors than after reading out ``keys``."""
        rank, width = self.config.kv_lora_rank, self.config.qk_nope_head_dim + self.config.v_head_dim
        carried = time if isinstance(self.key, Linear) and isinstance(self.value, Linear) else time + rank
        return carried * rank * width + 2 * time * keys * rank < keys * rank * width + time * keys * width

    def _matrix(self, part: nn.Module, *, like: Tensor) -> Float[Tensor, "heads features rank"]:
        """The matrix of each head; of a map that is wrapped or quantized, what it makes of unit vectors."""
        rank = self.config.kv_lora_rank
        weight = part.weight if isinstance(part, Linear) else part(torch.eye(rank).to(like)).T
        return weight.unflatten(0, (self.config.heads, -1))

    def finish(
        self, mixed: Float[Tensor, "batch heads time value_dim"], x: Float[Tensor, "batch time dim"]
    ) -> Float[Tensor, "batch time dim"]:
        """Project."""
        y = self.output(mixed.transpose(1, 2).flatten(2))
        return F.dropout(y, self.config.output_dropout, self.training)
