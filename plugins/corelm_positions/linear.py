"""Linear scaling of rotary frequencies: position interpolation."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Scaling


class LinearScaling(Scaling):
    """Divides all frequencies by a factor, as if positions lay closer (Chen et al., 2023, arXiv:2306.15595)."""

    class Config(ComponentConfig):
        """Options."""

        factor: float = Field(ge=1, description="How many times longer sequences become.")

    def frequencies(
        self, device: torch.device | None = None, lengths: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "*tokens pairs"]:
        """``ω / factor``."""
        return self.ladder.frequencies(device) / self.config.factor
