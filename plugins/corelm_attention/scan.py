"""The recurrence S_t = a_t S_{t−1} + k_t v_tᵀ, o_t = S_tᵀ q_t: token by token, and many tokens at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corelm_attention.segments import Segments


class Tokens(NamedTuple):
    """What a recurrence reads of every token.

    Attributes:
        q, k, v: queries, keys and values, ``(batch, heads, time, head_dim)``.
        decay: log a ≤ 0, ``(batch, heads, time)``.
    """

    q: Float[Tensor, "batch heads time head_dim"]
    k: Float[Tensor, "batch heads time head_dim"]
    v: Float[Tensor, "batch heads time head_dim"]
    decay: Float[Tensor, "batch heads time"]


State = Float[Tensor, "batch heads head_dim head_dim"]


def one_token(tokens: Tokens, where: Segments, state: State) -> tuple[Tensor, State]:
    """One step of the recurrence: output ``(batch, heads, 1, head_dim)`` and the new state."""
    q, k, v, decay = tokens
    kept = decay.exp()[..., None] * (where.tokens == where.before[:, None])[:, None, :, None]
    state = kept * state + k.transpose(-1, -2) * v
    return q @ state, state


def in_chunks(tokens: Tokens, where: Segments, state: State, chunk: int) -> tuple[Tensor, State]:
    """Outputs of all tokens and the state after them, without a loop (Dao & Gu, 2024, arXiv:2405.21060, section 6).

    Within a chunk tokens meet in pairs; between chunks only states meet, in pairs of chunks as well. Every decay that
    is taken is a sum of logarithms ≤ 0 from an earlier token to a later one, so that nothing overflows however strong
    the decay; sums are float64, so that differences of long ones keep their digits.
    """
    batch, heads, time, dim = tokens.q.shape
    chunk = min(chunk, time)
    count = -(-time // chunk)
    missing = count * chunk - time
    # What is missing in the last chunk is padded like padding: no key, no decay, the segment goes on.
    q, k, v = (F.pad(t, (0, 0, 0, missing)).view(batch, heads, count, chunk, dim) for t in tokens[:3])
    decay = F.pad(tokens.decay, (0, missing)).to(torch.float64).view(batch, heads, count, chunk)
    segment = torch.cat((where.tokens, where.tokens[:, -1:].expand(-1, missing)), 1).view(batch, 1, count, chunk)

    total = decay.cumsum(-1)
    near = _decays(total, segment, q.dtype)
    y = ((q @ k.transpose(-1, -2)) * near) @ v

    # What each chunk adds to the state at its end …
    last, ends = total[..., -1], segment[..., -1]
    to_end = _factor(last[..., None] - total, segment == ends[..., None], q.dtype)
    added = (k * to_end[..., None]).transpose(-1, -2) @ v
    # … and what is left of it, and of the state before all, at the end of every later chunk.
    ends = torch.cat((where.before[:, None, None], ends), -1)
    passed = F.pad(last.cumsum(-1), (1, 0))
    left = _decays(passed, ends, q.dtype)
    added = torch.cat((state[:, :, None], added), 2).flatten(-2)
    states = (left @ added).unflatten(-1, (dim, dim))

    from_start = _factor(total, segment == ends[..., :-1, None], q.dtype)
    y = y + (q * from_start[..., None]) @ states[:, :, :-1]
    return y.flatten(2, 3)[:, :, :time], states[:, :, -1]


def _decays(
    total: Float[Tensor, "... time"], segment: Int[Tensor, "... time"], dtype: torch.dtype
) -> Float[Tensor, "... time time"]:
    """What is left at i (rows) of what was written at j ≤ i (columns) of the same segment; 0 elsewhere."""
    together = (segment[..., :, None] == segment[..., None, :]).tril()
    return _factor(total[..., :, None] - total[..., None, :], together, dtype)


def _factor(logarithm: Tensor, where: Bool[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """The exponential where ``where``, else 0; what could overflow is masked before."""
    return logarithm.to(dtype).masked_fill(~where, -torch.inf).exp()
