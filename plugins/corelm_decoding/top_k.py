"""The k most likely tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Sampler
from corelm_decoding.checks import without_nan


class TopK(Sampler):
    """Keeps the k most likely tokens, and what is exactly as likely as the last of them.

    Fan et al., 2018, arXiv:1805.04833.
    """

    class Config(ComponentConfig):
        """Options."""

        k: int = Field(50, gt=0, description="How many tokens are kept.")

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Keep the k largest logits."""
        last = without_nan(logits).topk(min(self.config.k, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < last, -torch.inf)
