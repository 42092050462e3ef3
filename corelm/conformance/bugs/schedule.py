"""Schedules that are wrong in one way."""

from __future__ import annotations

import math

from pydantic import Field

from corelm.conformance.planted import plant, reference
from corelm.kinds.component import ComponentConfig
from corelm.kinds.optimizer import Schedule


@reference
class HalfCosine(Schedule):
    """Warm-up, then half a cosine."""

    law = "cosine"

    class Config(ComponentConfig):
        """Options."""

        warmup: int = Field(3, ge=0, description="Steps.")
        final: float = Field(0.1, ge=0, le=1, description="At the end.")

    def factor(self, step: int, total: int) -> float:
        """Factor."""
        warm = min(self.config.warmup, total)
        if step < warm:
            return self.rise(step)
        return self.config.final + (1 - self.config.final) * self.fall(self.progress(step, warm, total))

    def rise(self, step: int) -> float:
        """Warm-up."""
        return (step + 1) / self.config.warmup

    def stable_until(self, total: int) -> int:
        """Until the warm-up is over."""
        return int(min(self.config.warmup, total))

    def progress(self, step: int, warm: int, total: int) -> float:
        """From 0 to 1."""
        return min(1.0, (step - warm) / (total - warm)) if total > warm else 1.0

    def fall(self, progress: float) -> float:
        """From 1 to 0."""
        return (1 + math.cos(math.pi * progress)) / 2


@reference
class Plateau(HalfCosine):
    """Warm-up, plateau, straight decay."""

    law = "warmup-stable-decay"

    class Config(ComponentConfig):
        """Options."""

        warmup: int = Field(3, ge=0, description="Steps.")
        decay: int = Field(10, gt=0, description="Steps.")
        final: float = Field(0.1, ge=0, le=1, description="At the end.")

    def progress(self, step: int, warm: int, total: int) -> float:
        """0 until the decay."""
        begin = max(warm, total - self.config.decay)
        return min(1.0, max(0.0, (step - begin) / (total - begin))) if total > begin else 1.0

    def fall(self, progress: float) -> float:
        """Straight."""
        return 1 - progress

    def stable_until(self, total: int) -> int:
        """Until the decay."""
        return max(super().stable_until(total), total - self.config.decay)


@plant("in_unit_interval", "0/0 where the warm-up is the whole training")
class NoDecayLeft(HalfCosine):
    """Division by zero."""

    def progress(self, step: int, warm: int, total: int) -> float:
        return min(1.0, (step - warm) / (total - warm))


@plant("stays_at_the_end", "the cosine rises again after the end (UniRL#223)")
class Rebounds(HalfCosine):
    """No minimum."""

    def progress(self, step: int, warm: int, total: int) -> float:
        return (step - warm) / (total - warm) if total > warm else 1.0


@plant("one_peak", "a whole cosine, which goes down and up again")
class WholeCosine(HalfCosine):
    """Down and up."""

    def fall(self, progress: float) -> float:
        return (1 + math.cos(2 * math.pi * progress)) / 2


@plant("a_pure_function", "counts its calls")
class Counts(HalfCosine):
    """Stateful."""

    calls = 0

    def fall(self, progress: float) -> float:
        self.calls += 1
        return super().fall(progress) * (1 - 1e-4 * min(self.calls, 1000))


@plant("no_jumps", "a staircase of thirty steps")
class Staircase(HalfCosine):
    """By epochs."""

    def fall(self, progress: float) -> float:
        return super().fall(math.floor(progress * 30) / 30)


@plant("warmup_is_linear", "W + 1 in the warm-up")
class WarmsTooSlowly(HalfCosine):
    """Off by one."""

    def rise(self, step: int) -> float:
        return (step + 1) / (self.config.warmup + 1)


@plant("ends_where_it_says", "one step short of the end")
class OneStepShort(HalfCosine):
    """N + 1."""

    def progress(self, step: int, warm: int, total: int) -> float:
        return min(1.0, (step - warm) / (total - warm + 1))


@plant("shape_of_its_name", "a line under the name of the cosine")
class LineForCosine(HalfCosine):
    """Straight."""

    def fall(self, progress: float) -> float:
        return 1 - progress


@plant("stable_as_promised", "promises the whole training")
class PromisesTooMuch(Plateau):
    """Can't be prolonged."""

    def stable_until(self, total: int) -> int:
        return total


@plant("promises_what_is_kept", "the plateau is kept from users")
class PromisesTooLittle(Plateau):
    """Can't be prolonged, it says."""

    def stable_until(self, total: int) -> int:
        return 0


@plant("plateau_is_flat", "the decay begins early")
class DecaysEarly(Plateau):
    """Twice as long."""

    def progress(self, step: int, warm: int, total: int) -> float:
        begin = max(warm, total - 2 * self.config.decay)
        return min(1.0, max(0.0, (step - begin) / (total - begin))) if total > begin else 1.0
