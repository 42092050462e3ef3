"""Kernels of softmax attention: the same result by different ways, and the choice between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

EXPLICIT_SCORES = {2: 512 * 512, 4: 128 * 128, 8: 128 * 128}
"""On CPUs, training takes the explicit kernel up to this many scores per head, by bytes of a number.

Forward and backward of a whole gqa layer on two cores (dim 256, heads 8, kv_heads 2; explicit against fused):
bfloat16 35 against 72 ms at 32 × 128 tokens, 41 against 62 at 16 × 256, 68 against 89 at 8 × 512; float32 49 against 52,
then 69 against 63.
"""

SLICE_BYTES = 4 * 2**20
"""On CPUs, the explicit kernel holds about this much of scores at once in the forward pass."""


def choose(q: Tensor, k: Tensor, *, plain: bool, biased: bool, capped: bool, dropout: bool, backward: bool) -> str:
    """Name the kernel for queries and keys of these shapes, type and device.

    Returns:
        ``explicit``: two matrix products and a softmax in the type of the queries, which hold all scores in memory.
        On CPUs its backward pass is the faster one while the scores fit the caches; soft caps (and, on CPUs, dropout)
        exist there only. Else torch's fused kernel: ``sdpa-causal`` without any mask in memory, ``sdpa-mask`` with a
        boolean one (none for a single query that sees all), ``sdpa-bias`` with biases and mask as floats.
    """
    cpu = q.device.type == "cpu"
    short = q.shape[-2] * k.shape[-2] <= EXPLICIT_SCORES[q.element_size()]
    if capped or (cpu and dropout) or (cpu and backward and short):
        return "explicit"
    if biased:
        return "sdpa-bias"
    return "sdpa-causal" if plain and q.shape[-2] == k.shape[-2] else "sdpa-mask"


def attend(
    kernel: str,
    q: Float[Tensor, "batch heads time head_dim"],
    k: Float[Tensor, "batch kv_heads keys head_dim"],
    v: Float[Tensor, "batch kv_heads keys head_dim"],
    *,
    mask: Bool[Tensor, "rows 1 time keys"] | None,
    bias: Float[Tensor, "rows heads time keys"] | None,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads time head_dim"]:
    """Mix the values. Queries that may look at nothing give exactly zero, and finite gradients."""
    blind: Tensor | None = None
    if mask is not None:
        # A softmax over nothing is 0/0: let such queries see everything, and wipe their result.
        blind = ~mask.any(-1, keepdim=True)
        mask = mask | blind
    addend = mask if bias is None and kernel != "explicit" else _addend(bias, mask, q.dtype)
    if kernel == "explicit":
        y = _explicit(q, k, v, addend, scale, softcap, dropout)
    elif kernel == "sdpa-causal":
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scale, enable_gqa=True)
    else:
        y = F.scaled_dot_product_attention(q, k, v, addend, dropout_p=dropout, scale=scale, enable_gqa=True)
    return y if blind is None else y.masked_fill(blind, 0.0)


def _addend(bias: Tensor | None, mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores: the bias, and −inf where the mask forbids."""
    if mask is None:
        return None if bias is None else bias.to(dtype)
    allowed = torch.zeros((), dtype=dtype, device=mask.device) if bias is None else bias.to(dtype)
    return torch.where(mask, allowed, -torch.inf)


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, addend: Tensor | None, scale: float, softcap: float | None, dropout: float
) -> Tensor:
    batch, heads, time, head_dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    together = heads // kv_heads * time
    rows = batch
    if q.device.type == "cpu":
        # A few rows at a time: their scores stay in the cache, and their memory is used again rather than paged in.
        rows = max(1, SLICE_BYTES // (heads * time * keys * q.element_size()))
    mixed = []
    for first in range(0, max(batch, 1), rows):
        part = slice(first, first + rows)
        # The queries of one group stand below each other, so that keys and values need no copy per query head.
        grouped = (q[part] * scale).reshape(-1, kv_heads, together, head_dim)
        scores = (grouped @ k[part].transpose(-1, -2)).view(-1, heads, time, keys)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if addend is not None:
            scores = scores + (addend if len(addend) == 1 else addend[part])
        weights = F.dropout(torch.softmax(scores, dim=-1), dropout)
        mixed.append((weights.view(-1, kv_heads, together, keys) @ v[part]).view(-1, heads, time, head_dim))
    return torch.cat(mixed)
