"""A constant learning rate after a warm-up."""

from __future__ import annotations

from corelm_training.warmup import WarmedUp


class Constant(WarmedUp):
    """Warm-up, then 1 for good: training can be prolonged at any time."""

    elementary = True

    def after(self, step: int, total: int, warm: int) -> float:
        """Always 1."""
        return 1.0

    def stable_until(self, total: int) -> int:
        """All of it, where the warm-up does not depend on ``total``."""
        return total if self.total_free else 0
