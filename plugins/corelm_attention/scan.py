"""The recurrence S_t = a_t S_{t−1} + k_t v_tᵀ, o_t = S_tᵀ q_t: token by token, and many tokens at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from corelm.kinds import Cost, Work
from corelm_attention.chunks import Chunks
from corelm_attention.segments import Segments


class Tokens(NamedTuple):
    """What a recurrence reads of every token.

    Attributes:
        q, k: queries and keys, ``(batch, groups, time, key_dim)``; equally many heads in a row share a group's.
        v: values, ``(batch, heads, time, value_dim)``.
        decay: log a ≤ 0, ``(batch, heads, time)``.
    """

    q: Float[Tensor, "batch groups time key_dim"]
    k: Float[Tensor, "batch groups time key_dim"]
    v: Float[Tensor, "batch heads time value_dim"]
    decay: Float[Tensor, "batch heads time"]


State = Float[Tensor, "batch heads key_dim value_dim"]


def one_token(tokens: Tokens, where: Segments, state: State) -> tuple[Tensor, State]:
    """One step of the recurrence: output ``(batch, heads, 1, value_dim)`` and the new state."""
    q, k, v, decay = tokens
    q, k = (t.repeat_interleave(v.shape[1] // k.shape[1], 1) for t in (q, k))
    state = kept(decay, where) * state + k.transpose(-1, -2) * v
    return q @ state, state


def kept(decay: Float[Tensor, "batch heads 1"], where: Segments) -> Float[Tensor, "batch heads 1 1"]:
    """What one token leaves of the state: its decay, nothing where a document begins."""
    same = where.tokens == where.before[:, None]
    return decay.exp()[..., None] * same[:, None, :, None]


def in_chunks(tokens: Tokens, where: Segments, state: State, length: int) -> tuple[Tensor, State]:
    """Outputs of all tokens and the state after them, without a loop (Dao & Gu, 2024, arXiv:2405.21060, section 6).

    Within a chunk tokens meet in pairs; between chunks only states meet, in pairs of chunks as well.
    """
    chunks = Chunks(tokens.decay, where, length, tokens.v.dtype)
    groups, heads = tokens.k.shape[1], tokens.v.shape[1]
    per_group = (groups, heads // groups)
    q, k = chunks.cut(tokens.q), chunks.cut(tokens.k)
    v = chunks.cut(tokens.v).unflatten(1, per_group)

    pairs = (q @ k.transpose(-1, -2))[:, :, None] * chunks.near().unflatten(1, per_group)
    y = pairs @ v

    # What each chunk adds to the state at its end, and what is left of it, and of the state before all, at the end of
    # every later chunk.
    to_end = chunks.to_end().unflatten(1, per_group)[..., None]
    added = torch.einsum("bgclk,bgrclv->bgrckv", k, v * to_end).flatten(1, 2)
    added = torch.cat((state[:, :, None], added), 2)
    states = (chunks.far() @ added.flatten(-2)).view_as(added)

    earlier = states[:, :, :-1].unflatten(1, per_group)
    from_start = chunks.from_start().unflatten(1, per_group)[..., None]
    y = y + torch.einsum("bgclk,bgrckv->bgrclv", q, earlier) * from_start
    return chunks.joined(y.flatten(1, 2)), states[:, :, -1]


def cost(work: Work, groups: int, heads: int, key_dim: int, value_dim: int, length: int) -> Cost:
    """Products of ``one_token`` where a single one comes, else of ``in_chunks``."""
    state = heads * key_dim * value_dim
    if work.time == 1:
        return Cost(2 * work.batch * state)
    length = min(length, work.time)
    count = -(-work.time // length)
    pairs = length**2 * (groups * key_dim + heads * value_dim)
    # Each chunk writes a state and reads one (sums over tokens and over keys; a sum of one term is no product of
    # matrices); in between, the states at all chunks' ends meet.
    states = length * state * ((length > 1) + (key_dim > 1)) * count + (count + 1) ** 2 * state
    return Cost(2 * work.batch * (pairs * count + states))
