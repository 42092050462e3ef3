"""Linear decay after a warm-up."""

from __future__ import annotations

from pydantic import Field

from corelm_training.warmup import WarmedUp


class Linear(WarmedUp):
    """Warm-up, then a straight line from 1 down to ``final``.

    With W warm-up steps of N: ``final + (1 − final) · (N − t) / (N − W)``.
    """

    elementary = True

    class Config(WarmedUp.Config):
        """The warm-up and where the line ends."""

        final: float = Field(0.0, ge=0, le=1, description="Factor at the end.")

    def after(self, step: int, total: int, warm: int) -> float:
        """A straight line over what is left after the warm-up."""
        left = (total - step) / (total - warm) if total > warm else 0.0
        final: float = self.config.final
        return final + (1 - final) * left
