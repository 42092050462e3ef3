"""Schedules whose clock is wrong."""

from __future__ import annotations

from corelm.conformance.bugs.schedule import HalfCosine, Plateau
from corelm.conformance.planted import plant


@plant("time_is_relative", "one step too many under the fraction, the end set right by hand")
class OneTooMany(HalfCosine):
    """N + 1."""

    law = "half a cosine"

    def progress(self, step: int, warm: int, total: int) -> float:
        return (step - warm) / (total - warm + 1) if step < total else 1.0


@plant("time_is_relative", "the decay is never shorter than thirty steps, whatever was asked for")
class LongDecay(Plateau):
    """A constant that hides."""

    law = "a plateau"

    def progress(self, step: int, warm: int, total: int) -> float:
        begin = max(warm, total - max(self.config.decay, 30))
        return min(1.0, max(0.0, (step - begin) / (total - begin))) if total > begin else 1.0


@plant("shape_of_its_name", "a quarter of a cosine")
class QuarterCosine(HalfCosine):
    """Both ends are right."""

    def fall(self, progress: float) -> float:
        return 2 * super().fall(progress / 2) - 1
