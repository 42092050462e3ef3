"""The gated delta rule: token by token, and many tokens at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from corelm.kinds import Cost, Work
from corelm_attention.chunks import Chunks
from corelm_attention.scan import State, kept
from corelm_attention.segments import Segments


class DeltaTokens(NamedTuple):
    """What the delta rule reads of every token.

    Attributes:
        q, k: queries and keys, ``(batch, groups, time, key_dim)``; equally many heads in a row share a group's.
        v: values, ``(batch, heads, time, value_dim)``.
        decay: log a ≤ 0, ``(batch, heads, time)``.
        strength: β, how much of what the key recalls is replaced by the value, ``(batch, heads, time)``.
    """

    q: Float[Tensor, "batch groups time key_dim"]
    k: Float[Tensor, "batch groups time key_dim"]
    v: Float[Tensor, "batch heads time value_dim"]
    decay: Float[Tensor, "batch heads time"]
    strength: Float[Tensor, "batch heads time"]


def one_token(tokens: DeltaTokens, where: Segments, state: State) -> tuple[Tensor, State]:
    """One step: output ``(batch, heads, 1, value_dim)`` and the new state."""
    q, k, v, decay, strength = tokens
    q, k = (t.repeat_interleave(v.shape[1] // k.shape[1], 1) for t in (q, k))
    state = kept(decay, where) * state
    state = state + k.transpose(-1, -2) * ((v - k @ state) * strength[..., None])
    return q @ state, state


def in_chunks(tokens: DeltaTokens, where: Segments, state: State, length: int) -> tuple[Tensor, State]:
    """Outputs of all tokens and the state after them, a chunk at a time (Yang et al., 2024, arXiv:2412.06464, section 3.3).

    What token i of a chunk writes, u_i = β_i (v_i − what its key recalls), depends on what the tokens before it wrote
    and on the state S before the chunk: ``(I + L) u = β v − β Γ k S``, L_ij = β_i Γ_ij k_iᵀk_j for j < i, Γ the
    decays. The triangular system is solved once for both right-hand sides, so that only ``u = u₀ − W S`` and the
    state's update are left for the loop over chunks.
    """
    chunks = Chunks(tokens.decay, where, length, tokens.v.dtype)
    heads = tokens.v.shape[1]
    per_group = heads // tokens.k.shape[1]
    near, from_start = chunks.near(), chunks.from_start()[..., None]
    q, k, v = (chunks.cut(t) for t in tokens[:3])
    strength = chunks.cut(tokens.strength[..., None])
    alike, asked = (_each(t @ k.transpose(-1, -2), per_group) * near for t in (k, q))
    k_heads = _each(k, per_group)

    sides = torch.cat((v * strength, k_heads * (strength * from_start)), -1)
    solved = torch.linalg.solve_triangular(alike * strength, sides, upper=False, unitriangular=True)
    fresh, recalled = solved.split((v.shape[-1], k.shape[-1]), -1)
    into_state = (k_heads * chunks.to_end()[..., None]).transpose(-1, -2)
    across = chunks.across()[..., None, None]

    written, states = [], []
    # unbind rather than an index per chunk: the gradient of each index would be a tensor of all chunks' size.
    for u, w, into, a in zip(*(t.unbind(2) for t in (fresh, recalled, into_state, across)), strict=True):
        states.append(state)
        written.append(u - w @ state)
        state = a * state + into @ written[-1]
    before = _each(q, per_group) * from_start
    y = asked @ torch.stack(written, 2) + before @ torch.stack(states, 2)
    return chunks.joined(y), state


def _each(x: Tensor, per_group: int) -> Tensor:
    """What a group has, once for each of its heads."""
    return x if per_group == 1 else x.repeat_interleave(per_group, 1)


def cost(work: Work, groups: int, heads: int, key_dim: int, value_dim: int, length: int) -> Cost:
    """Products of ``one_token`` where a single one comes, else of ``in_chunks``."""
    state = heads * key_dim * value_dim
    if work.time == 1:
        return Cost(2 * work.batch * 2 * state)
    length = min(length, work.time)
    count = -(-work.time // length)
    pairs = length**2 * (2 * groups * key_dim + heads * value_dim)
    solved = length**2 * heads * (key_dim + value_dim)  # half a square of products and additions for each column
    return Cost(work.batch * count * (2 * (pairs + 3 * length * state) + solved))
