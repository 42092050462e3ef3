"""A penalty on tokens that were there before."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Sampler
from corelm_decoding.checks import without_nan


class RepetitionPenalty(Sampler):
    """Makes tokens of the sequence so far less likely, once each (Keskar et al., 2019, arXiv:1909.05858).

    Positive logits are divided by the penalty, negative ones multiplied.
    """

    class Config(ComponentConfig):
        """Options."""

        penalty: float = Field(1.1, gt=0, description="Above 1 repetition is discouraged, below 1 encouraged.")

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Lower the logits of seen tokens."""
        penalty = self.config.penalty
        seen = torch.zeros_like(without_nan(logits), dtype=torch.bool).scatter(-1, ids, True)
        return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
