"""Kernels of softmax attention: the same result by different ways, and the choice between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from corelm.kinds import Heads

EXPLICIT_SCORES = 512 * 512
"""On CPUs the explicit kernel is taken up to this many scores per head where they are kept for a backward pass.

Forward and backward on one core of an AMD Zen 5, explicit against fused, heads / kv_heads / head_dim 8 / 2 / 32: bfloat16
30 against 74 ms at 16 × 256 tokens, 44 against 121 at 8 × 512; float32 46 against 56, and 83 against 121. At 2 × 2,048
(head_dim 64) float32 takes 963 against 475. Forward alone: bfloat16 11 against 19, 17 against 35, and 85 against 137 at
2 × 2,048; float32 18 against 25, 29 against 32, and 137 against 129.
"""

SLICE_BYTES = 4 * 2**20
"""On CPUs the explicit kernel holds about this much of scores at once in the forward pass."""

BLOCK = 64
"""Queries that the explicit kernel takes at once on CPUs under a causal mask: later keys are left out altogether."""


def choose(heads: Heads, *, plain: bool, biased: bool, dropout: bool, backward: bool) -> str:
    """Name the kernel for heads of these shapes, type and device.

    Returns:
        ``explicit``: two matrix products and a softmax in the type of the queries, some rows and queries at a time. On
        CPUs it is the faster one for a single query, whose keys it need not repeat for every head, for 16-bit numbers
        without a backward pass, and while all scores fit the caches. Soft caps (and, on CPUs, dropout) exist there only.
        Else torch's fused kernel: ``sdpa-causal`` without any mask in memory, ``sdpa-mask`` with one (none for a single
        query that sees all), ``sdpa-bias`` with biases as well.
    """
    q, keys = heads.q, heads.k.shape[2]
    time, cpu = q.shape[2], q.device.type == "cpu"
    # The fused kernels would copy all keys: for the sink, or to repeat the one key of many heads.
    copies = heads.sinks is not None or heads.v.shape[-1] < q.shape[-1]
    fast = time * keys <= EXPLICIT_SCORES or (q.element_size() == 2 and not backward)
    if heads.softcap is not None or (time == 1 and (cpu or copies)) or (cpu and (dropout or fast)):
        return "explicit"
    if biased:
        return "sdpa-bias"
    return "sdpa-causal" if plain and time == keys else "sdpa-mask"


def attend(
    kernel: str,
    heads: Heads,
    *,
    addend: Float[Tensor, "rows heads time keys"] | None = None,
    blind: Bool[Tensor, "rows 1 time 1"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads time value_dim"]:
    """Mix the values.

    Args:
        kernel: by its name.
        heads: what is mixed; the queries are the newest of the tokens that have keys.
        addend: what is added to the scores, −∞ where a query may not look; no query may look at nothing. None: nothing
            but causality limits what queries see, if anything does.
        blind: queries whose result is zero.
        causal: no query looks at a later key. ``sdpa-mask`` and ``sdpa-bias`` read it off the addend.
        dropout: probability of dropping a weight.
    """
    if kernel == "explicit":
        mixed = _explicit(heads, addend, causal, dropout)
    else:
        mixed = _fused(heads, addend, kernel == "sdpa-causal", dropout)
    return mixed if blind is None else mixed.masked_fill(blind, 0.0)


def _fused(heads: Heads, addend: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """torch's kernel; a sink is one more key in front, and where only causality counts one more query as well."""
    q, k, v = heads.q, heads.k, heads.v
    time, width = q.shape[2], v.shape[-1]
    if heads.sinks is not None:
        # One more feature: the sink's score in the queries, 1 in its key and 0 in all others.
        sinks = (heads.sinks / heads.scale).to(q.dtype)[:, None, None].expand(*q.shape[:3], 1)
        q = F.pad(torch.cat((q, sinks), -1), (0, 0, int(causal), 0))
        sink = F.pad(k.new_ones(1), (k.shape[-1], 0)).expand(*k.shape[:2], 1, -1)
        k = torch.cat((sink, F.pad(k, (0, 1))), 2)
        v = F.pad(v, (0, 0, 1, 0))
        addend = None if addend is None else F.pad(addend, (1, 0))
    if q.device.type == "cpu" and q.shape[-1] != v.shape[-1]:  # else torch would hold all scores in memory
        most = max(q.shape[-1], v.shape[-1])
        q, k, v = (F.pad(x, (0, most - x.shape[-1])) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(
        q, k, v, addend, dropout_p=dropout, is_causal=causal, scale=heads.scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed[:, :, mixed.shape[2] - time :, :width]


def _explicit(heads: Heads, addend: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """Some rows and queries at a time: scores stay in the cache, and their memory is used again."""
    time = heads.q.shape[2]
    if time == 1:  # in the type of the keys, which may be stored as a better one
        return _block(heads, heads.q.to(heads.k.dtype) * heads.scale, heads.k, heads.v, addend, dropout).to(
            heads.q.dtype
        )
    past = heads.k.shape[2] - time
    rows, some = _slices(heads, causal)
    q, k, v = heads.q * heads.scale, heads.k, heads.v
    if some < time:  # each block would copy its part otherwise
        k, v = k.contiguous(), v.contiguous()
    triangle = None
    if causal and addend is None:
        triangle = torch.full((some, some), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    mixed = []
    for row, (q_row, k_row, v_row) in enumerate(zip(q.split(rows), k.split(rows), v.split(rows), strict=True)):
        added = addend if addend is None or len(addend) == 1 else addend[row * rows : (row + 1) * rows]
        parts = []
        for first, q_part in zip(range(0, max(time, 1), some), q_row.split(some, 2), strict=True):
            last = first + q_part.shape[2]
            seen = past + last if causal else past + time
            here = None if added is None else added[:, :, first:last, :seen]
            if triangle is not None:
                here = F.pad(triangle[: last - first, : last - first], (past + first, 0))
            parts.append(_block(heads, q_part, k_row[:, :, :seen], v_row[:, :, :seen], here, dropout))
        mixed.append(_joined(parts, 2))
    return _joined(mixed, 0)


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _slices(heads: Heads, causal: bool) -> tuple[int, int]:
    """How many rows and queries the explicit kernel takes at once."""
    batch, count, time, _ = heads.q.shape
    if heads.q.device.type != "cpu":
        return max(batch, 1), max(time, 1)
    per_query = count * heads.k.shape[2] * heads.q.element_size()
    some = max(1, min(time, BLOCK if causal else time, SLICE_BYTES // max(per_query, 1)))
    return max(1, SLICE_BYTES // max(per_query * some, 1)), some


def _block(heads: Heads, q: Tensor, k: Tensor, v: Tensor, addend: Tensor | None, dropout: float) -> Tensor:
    """Mix by two products; ``q`` is scaled already."""
    batch, count, time, _ = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    # The queries of one group stand below each other, so that keys and values need no copy per query head.
    grouped = q.reshape(batch * kv_heads, count // kv_heads * time, q.shape[-1])
    scores = torch.bmm(grouped, k.flatten(0, 1).transpose(1, 2)).view(batch, count, time, keys)
    if heads.softcap is not None:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    if addend is not None:
        scores = scores + addend
    if heads.sinks is not None:
        sinks = heads.sinks.to(scores.dtype)[:, None, None].expand(batch, count, time, 1)
        scores = torch.cat((sinks, scores), -1)
    weights = torch.softmax(scores, dim=-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    if heads.sinks is not None and time == 1:
        weights = weights[..., 1:]
    elif heads.sinks is not None:
        v = F.pad(v, (0, 0, 1, 0))  # cheaper than a copy of the weights without their first column
    mixed = torch.bmm(weights.reshape(*grouped.shape[:2], weights.shape[-1]), v.flatten(0, 1))
    return mixed.view(batch, count, time, v.shape[-1])
