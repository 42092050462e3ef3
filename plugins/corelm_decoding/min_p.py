"""A threshold relative to the likeliest token."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Sampler
from corelm_decoding.checks import without_nan


class MinP(Sampler):
    """Keeps tokens at least p times as likely as the likeliest (Nguyen et al., 2024, arXiv:2407.01082)."""

    class Config(ComponentConfig):
        """Options."""

        p: float = Field(0.05, ge=0, le=1, description="Share of the largest probability; 0 keeps everything.")

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Keep what reaches the threshold."""
        probabilities = without_nan(logits).softmax(-1)
        threshold = self.config.p * probabilities.amax(-1, keepdim=True)
        return logits.masked_fill(probabilities < threshold, -torch.inf)
