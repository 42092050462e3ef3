"""What the schedules share: a linear warm-up, given in steps or as a fraction of them all."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from pydantic import Field

from corelm.kinds import ComponentConfig, Count, Schedule

Steps = Annotated[Count, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)]
"""A whole number is optimizer steps; a number with a point is a fraction of them all."""


def in_steps(value: int | float, total: int) -> int:
    """A number of steps, at most ``total``; a fraction is of ``total``, rounded."""
    return min(total, value if isinstance(value, int) else round(value * total))


class WarmedUp(Schedule):
    """A schedule that begins with a linear warm-up: step t of W has the factor (t + 1) / W.

    No step is lost to a factor of 0, and a warm-up of one step is none. A warm-up longer than the training is cut
    off by its end. From step ``total`` on the final value holds.
    """

    class Config(ComponentConfig):
        """How long the warm-up is."""

        warmup: Steps = Field(
            0.02, description="Steps of linear warm-up: a whole number of them, or a fraction such as 0.02."
        )

    def factor(self, step: int, total: int) -> float:
        """What the learning rate is multiplied by at this step (from 0)."""
        warmup = self.config.warmup
        warm = in_steps(warmup, total)
        if step < warm:
            return (step + 1) / (warmup if isinstance(warmup, int) else warm)
        return self.after(min(step, total), total, warm)

    @abstractmethod
    def after(self, step: int, total: int, warm: int) -> float:
        """The factor once the warm-up is over, for ``warm ≤ step ≤ total``."""

    def stable_until(self, total: int) -> int:
        """The end of the warm-up, where that is the same for any ``total``."""
        return in_steps(self.config.warmup, total) if self.total_free else 0

    @property
    def total_free(self) -> bool:
        """Whether the warm-up does not depend on ``total``."""
        return isinstance(self.config.warmup, int) or self.config.warmup == 0
