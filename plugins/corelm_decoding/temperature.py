"""Temperature."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Sampler
from corelm_decoding.checks import without_nan


class Temperature(Sampler):
    """Divides logits by a temperature: below 1 likely tokens gain, above 1 they lose (Ackley et al., 1985).

    It is that of a Boltzmann machine: Ackley et al., 1985, doi:10.1207/s15516709cog0901_7.

    Where the quotient overflows, the row's largest logit is subtracted first, which leaves the distribution as it is.
    """

    class Config(ComponentConfig):
        """Options."""

        value: float = Field(1.0, gt=0, description="The temperature; for the most likely token use greedy.")

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Divide."""
        value = self.config.value
        largest = without_nan(logits).amax(-1, keepdim=True)
        quotient = logits / value
        fits = torch.isfinite(quotient).eq(torch.isfinite(logits)).all(-1, keepdim=True)
        safe = max(value, torch.finfo(logits.dtype).tiny)
        return torch.where(fits, quotient, (logits - largest) / safe)
