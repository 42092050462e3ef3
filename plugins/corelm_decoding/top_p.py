"""Nucleus sampling."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Sampler
from corelm_decoding.checks import without_nan


class TopP(Sampler):
    """Keeps the smallest set of likeliest tokens whose mass reaches p (Holtzman et al., 2019, arXiv:1904.09751)."""

    class Config(ComponentConfig):
        """Options."""

        p: float = Field(0.95, gt=0, le=1, description="The mass that is kept at least; 1 keeps everything.")

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Keep the nucleus."""
        without_nan(logits)
        if self.config.p == 1:
            return logits
        # From the unlikeliest up: a token goes while what goes, itself included, is at most 1 − p. Small masses are
        # added first, so that the sum is exact where it decides.
        ascending, order = logits.sort(-1)
        gone = ascending.softmax(-1).cumsum(-1) <= 1 - self.config.p
        gone[:, -1] = False
        return logits.masked_fill(gone.scatter(-1, order, gone), -torch.inf)
