"""Greedy choice."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corelm.kinds import Sampler
from corelm_decoding.checks import without_nan


class Greedy(Sampler):
    """Keeps the most likely token only; of equals, the first."""

    elementary = True

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Keep the largest logit."""
        best = without_nan(logits).argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
