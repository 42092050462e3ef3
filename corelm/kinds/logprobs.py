"""The one definition of a token's log-probability, and of a sequence's last token."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from corelm.kinds.batch import IGNORE
from corelm.kinds.head import Head

CHUNK_ELEMENTS = 1 << 27
"""Logits computed at once; beyond it they are chunked over tokens and recomputed in the backward pass."""

UNTRAINED_ELEMENTS = 1 << 22
"""The same where nothing is kept for a backward pass: small enough that a CPU's allocator uses the memory again."""

CACHED_ELEMENTS = 1 << 17
"""Logits that are float32 at once on a CPU, so that they stay in its cache."""

NEARLY_ALL = 0.95
"""From this share of positions with a target on, it costs less to compute all of them than to pick them out."""


def token_logprobs(
    hidden: Float[Tensor, "batch time dim"], head: Head, targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """log p(target) at every position, in float32; 0 where the target is ``IGNORE``.

    The logits keep the dtype that the head gives; the log-softmax over them is taken in float32 (float64 for float64
    logits), a few rows at a time. No logits of the whole batch in float32 exist. Positions without a target have no
    gradient, and where they are many they don't reach the head.
    """
    wanted = targets != IGNORE
    # A compiled graph can't look at values, so it computes all.
    if torch.compiler.is_compiling() or int(wanted.sum()) >= NEARLY_ALL * wanted.numel():
        everywhere = _chunked(hidden.flatten(0, 1), targets.clamp(min=0).flatten(), head).view(targets.shape)
        return torch.where(wanted, everywhere, 0.0)
    picked = _chunked(hidden[wanted], targets[wanted], head)
    result = torch.zeros(targets.shape, dtype=picked.dtype, device=hidden.device)
    return result.masked_scatter(wanted, picked)


def _chunked(hidden: Float[Tensor, "tokens dim"], targets: Int[Tensor, " tokens"], head: Head) -> Tensor:
    trained = torch.is_grad_enabled()
    rows = max(1, (CHUNK_ELEMENTS if trained else UNTRAINED_ELEMENTS) // head.outputs)
    if len(hidden) <= rows:
        return _logprobs(hidden, targets, head)
    pieces = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    if not trained:
        return torch.cat([_logprobs(piece, some, head) for piece, some in pieces])
    return torch.cat([checkpoint(_logprobs, piece, some, head, use_reentrant=False) for piece, some in pieces])


def _logprobs(
    hidden: Float[Tensor, "tokens dim"], targets: Int[Tensor, " tokens"], head: Head
) -> Float[Tensor, " tokens"]:
    logits = head(hidden)
    if torch.compiler.is_compiling():  # which keeps no converted logits either, as long as nothing is gathered
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        chosen = torch.arange(head.outputs, device=logits.device) == targets[:, None]
        return torch.where(chosen, wide, 0.0).sum(1) - torch.logsumexp(wide, 1)
    return cast(Tensor, _PickedLogSoftmax.apply(logits, targets))  # type: ignore[no-untyped-call]


class _PickedLogSoftmax(torch.autograd.Function):
    """One entry per row of a log-softmax, in float32 or better whatever the dtype of the logits.

    Torch's own ways either round each result to the logits' dtype or convert all logits first. Here forward and
    backward pass convert a few rows at a time; only the logits are kept in between.
    """

    @staticmethod
    def forward(ctx: Any, logits: Float[Tensor, "rows classes"], targets: Int[Tensor, " rows"]) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        picked = torch.empty(len(logits), dtype=dtype, device=logits.device)
        for part in _parts(logits):
            picked[part] = torch.log_softmax(logits[part], 1, dtype).gather(1, targets[part, None])[:, 0]
        ctx.save_for_backward(logits, targets)
        return picked

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Float[Tensor, " rows"]) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for part in _parts(logits):
            slopes = slope[part, None]
            weights = torch.softmax(logits[part], 1, slope.dtype).mul_(-slopes)
            gradient[part] = weights.scatter_add_(1, targets[part, None], slopes)
        return gradient, None


def _parts(logits: Float[Tensor, "rows classes"]) -> list[slice]:
    """Rows to convert at once."""
    limit = CACHED_ELEMENTS if logits.device.type == "cpu" else CHUNK_ELEMENTS
    size = max(1, limit // logits.shape[1])
    return [slice(first, first + size) for first in range(0, len(logits), size)]


def last_real(valid: Bool[Tensor, "batch time"] | None, ids: Int[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Column of each row's last real token; taken from the mask, never from pad ids."""
    if valid is None:
        return torch.full((ids.shape[0],), ids.shape[1] - 1, device=ids.device)
    columns = torch.arange(ids.shape[1], device=ids.device)
    return torch.where(valid, columns, -1).amax(dim=1).clamp(min=0)
