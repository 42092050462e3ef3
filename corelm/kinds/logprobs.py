"""The one definition of a token's log-probability, and of a sequence's last token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from corelm.kinds.batch import IGNORE
from corelm.kinds.head import Head

CHUNK_ELEMENTS = 1 << 27
"""Logits computed at once; beyond it they are chunked over tokens and recomputed in the backward pass."""


def token_logprobs(
    hidden: Float[Tensor, "batch time dim"], head: Head, targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """log p(target) at every position, in float32; 0 where the target is ``IGNORE``.

    Only positions with a target reach the head. The logits keep the dtype that the head gives; the
    log-softmax is taken over them with float32 accumulation. No logits of the whole batch in float32 exist.
    """
    wanted = targets != IGNORE
    flat, labels = hidden[wanted], targets[wanted]
    rows = max(1, CHUNK_ELEMENTS // head.outputs)
    if len(flat) <= rows:
        picked = _logprobs(flat, labels, head)
    else:
        pieces = zip(flat.split(rows), labels.split(rows), strict=True)
        picked = torch.cat(
            [checkpoint(_logprobs, piece, label, head, use_reentrant=False) for piece, label in pieces]
        )
    result = torch.zeros(targets.shape, dtype=picked.dtype, device=hidden.device)
    return result.masked_scatter(wanted, picked)


def _logprobs(
    hidden: Float[Tensor, "tokens dim"], targets: Int[Tensor, " tokens"], head: Head
) -> Float[Tensor, " tokens"]:
    # Autocast would copy the logits to float32 first; the loss kernel accumulates in float32 by itself.
    logits = head(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        return -F.cross_entropy(logits, targets, reduction="none").to(
            torch.promote_types(logits.dtype, torch.float32)
        )


def last_real(valid: Bool[Tensor, "batch time"] | None, ids: Int[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Column of each row's last real token; taken from the mask, never from pad ids."""
    if valid is None:
        return torch.full((ids.shape[0],), ids.shape[1] - 1, device=ids.device)
    columns = torch.arange(ids.shape[1], device=ids.device)
    return torch.where(valid, columns, -1).amax(dim=1).clamp(min=0)
