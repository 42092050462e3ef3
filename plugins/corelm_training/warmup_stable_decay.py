"""Warm-up, a long stable phase, a short decay."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from corelm_training.warmup import Steps, WarmedUp, in_steps


class WarmupStableDecay(WarmedUp):
    """Warm-up, then exactly 1, then a decay to ``final`` over the last steps.

    Until the decay begins, nothing depends on the length of the training, so that it can be prolonged from any
    checkpoint of the stable phase. Hu et al., 2024, arXiv:2404.06395; the shape ``1-sqrt``: Hägele et al., 2024,
    arXiv:2405.18392.
    """

    class Config(WarmedUp.Config):
        """The warm-up and the decay."""

        warmup: Steps = Field(
            100, description="Steps of linear warm-up: a whole number of them, or a fraction such as 0.02."
        )
        decay: Steps = Field(0.2, description="Steps of decay at the end: a whole number of them, or a fraction.")
        shape: Literal["linear", "1-sqrt"] = Field("linear", description="The curve of the decay.")
        final: float = Field(0.0, ge=0, le=1, description="Factor at the end.")

    def after(self, step: int, total: int, warm: int) -> float:
        """1 until the decay begins, then down to ``final``."""
        start = max(warm, self._decay_start(total))
        if step <= start and step < total:
            return 1.0
        progress = (step - start) / (total - start) if total > start else 1.0
        kept = 1 - progress if self.config.shape == "linear" else 1 - math.sqrt(progress)
        final: float = self.config.final
        return final + (1 - final) * kept

    def stable_until(self, total: int) -> int:
        """The step at which the decay begins, where the warm-up does not depend on ``total``."""
        if not self.total_free:
            return 0
        return max(in_steps(self.config.warmup, total), self._decay_start(total))

    def _decay_start(self, total: int) -> int:
        return total - in_steps(self.config.decay, total)
