"""Cosine decay after a warm-up."""

from __future__ import annotations

import math

from pydantic import Field

from corelm_training.warmup import WarmedUp


class Cosine(WarmedUp):
    """Warm-up, then half a cosine from 1 down to ``final`` (Loshchilov & Hutter, 2016, arXiv:1608.03983).

    With W warm-up steps of N: ``final + (1 − final) · (1 + cos(π (t − W) / (N − W))) / 2``; it never rises again.
    """

    class Config(WarmedUp.Config):
        """The warm-up and where the curve ends."""

        final: float = Field(0.1, ge=0, le=1, description="Factor at the end.")

    def after(self, step: int, total: int, warm: int) -> float:
        """Half a cosine over what is left after the warm-up."""
        progress = (step - warm) / (total - warm) if total > warm else 1.0
        final: float = self.config.final
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
