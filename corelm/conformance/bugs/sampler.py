"""Samplers that are wrong in one way."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.sampler import Sampler


class Checked(Sampler):
    """Refuses NaN, then filters."""

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Filter."""
        self.look(logits)
        return self.filter(logits, ids)

    def look(self, logits: Tensor) -> None:
        """Refuse NaN."""
        if logits.isnan().any():
            raise UserError("a logit is NaN")

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Change the logits."""
        raise NotImplementedError


@reference
class Nucleus(Checked):
    """The smallest set that reaches p."""

    law = "top-p"

    class Config(ComponentConfig):
        """Options."""

        p: float = Field(0.9, gt=0, le=1, description="Mass.")

    def dropped(self, ordered: Tensor) -> Tensor:
        """Which places of the sorted row are dropped."""
        return ordered.cumsum(-1) - ordered >= self.config.p

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Sort, drop, put back."""
        if self.config.p == 1:
            return logits
        chance, order = logits.softmax(-1).sort(descending=True)
        drop = torch.zeros_like(chance, dtype=torch.bool).scatter(-1, order, self.dropped(chance))
        return logits.masked_fill(drop, -torch.inf)


@reference
class Largest(Checked):
    """The k likeliest."""

    law = "top-k"

    class Config(ComponentConfig):
        """Options."""

        k: int = Field(5, gt=0, description="How many.")

    def threshold(self, logits: Tensor) -> Tensor:
        """The smallest logit that stays."""
        return logits.topk(min(self.config.k, logits.shape[-1])).values[:, -1:]

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Drop what is below."""
        return logits.masked_fill(logits < self.threshold(logits), -torch.inf)


@reference
class Cooler(Checked):
    """Divides by the temperature."""

    law = "temperature"

    class Config(ComponentConfig):
        """Options."""

        value: float = Field(1.0, gt=0, description="Temperature.")

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Divide; where that overflows, after the largest is subtracted."""
        quotient = logits / self.config.value
        lowered = (logits - logits.amax(-1, keepdim=True)) / self.config.value
        return torch.where((quotient < torch.inf).all(-1, keepdim=True), quotient, lowered)


@reference
class Penalty(Checked):
    """Less likely when seen."""

    law = "repetition-penalty"

    class Config(ComponentConfig):
        """Options."""

        penalty: float = Field(1.2, gt=0, description="Factor.")

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Lower."""
        p = self.config.penalty
        seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
        return torch.where(seen, torch.where(logits > 0, logits / p, logits * p), logits)


@plant("a_distribution", "everything below a fixed logit goes, perhaps everything")
class MayEmpty(Largest):
    """Absolute."""

    def threshold(self, logits: Tensor) -> Tensor:
        return torch.full_like(logits[:, :1], 1.5)


@plant("rows_are_independent", "one threshold for the batch")
class OneThreshold(Largest):
    """The first row's."""

    def threshold(self, logits: Tensor) -> Tensor:
        return super().threshold(logits).amin(0, keepdim=True)


@plant("vocabulary_can_be_permuted", "the mask is applied in sorted order")
class SortedOrder(Nucleus):
    """Not put back."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        chance = logits.softmax(-1).sort(descending=True).values
        return logits.masked_fill(self.dropped(chance), -torch.inf)


@plant("shift_invariant", "probabilities are taken to be logits without a maximum")
class RawThreshold(Nucleus):
    """exp without normalisation."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        chance, order = logits.exp().sort(descending=True)
        drop = torch.zeros_like(chance, dtype=torch.bool).scatter(-1, order, self.dropped(chance))
        return logits.masked_fill(drop, -torch.inf)


@plant("forbidden_stays_forbidden", "a floor under the logits")
class Floor(Cooler):
    """−1e4."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return super().filter(logits, ids).clamp(min=-1e4)


@plant("nan_is_refused", "NaN goes through")
class LetsNanThrough(Largest):
    """Looks away."""

    def look(self, logits: Tensor) -> None:
        pass


@plant("kept_logits_are_untouched", "kept logits are normalised")
class Renormalises(Largest):
    """log-softmax of the kept."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return super().filter(logits, ids).log_softmax(-1)


@plant("nucleus_is_minimal", "the token that crosses p is dropped (esm#360, fish-speech#1171)")
class DropsTheCrossing(Nucleus):
    """Too few."""

    def dropped(self, ordered: Tensor) -> Tensor:
        gone = ordered.cumsum(-1) > self.config.p
        gone[:, 0] = False
        return gone


@plant("nucleus_is_minimal", "one token too many")
class OneTooMany(Nucleus):
    """Too many."""

    def dropped(self, ordered: Tensor) -> Tensor:
        return super().dropped(ordered).roll(1, -1) & super().dropped(ordered)


@plant("keeps_exactly_k", "one more than k")
class KeepsOneMore(Largest):
    """Off by one."""

    def threshold(self, logits: Tensor) -> Tensor:
        return logits.topk(min(self.config.k + 1, logits.shape[-1])).values[:, -1:]


@plant("threshold_is_relative", "the threshold is absolute, not a share of the likeliest")
class AbsoluteMinimum(Checked):
    """p itself."""

    law = "min-p"

    class Config(ComponentConfig):
        """Options."""

        p: float = Field(0.1, ge=0, le=1, description="Share.")

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        chance = logits.softmax(-1)
        return logits.masked_fill((chance < self.config.p) & (chance < chance.amax(-1, keepdim=True)), -torch.inf)


@plant("temperature_divides", "multiplied in place of divided")
class Multiplies(Cooler):
    """Hotter is colder."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return logits * self.config.value


@plant("cold_is_greedy", "a floor under the temperature")
class NeverCold(Cooler):
    """At least 0.3."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return logits / max(self.config.value, 0.3)


@plant("overflow_is_no_matter", "+∞ for the likeliest, and NaN out of it")
class Overflows(Cooler):
    """Nothing but the quotient."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return logits / self.config.value


@plant("overflow_is_no_matter", "a floor that only the smallest temperatures reach")
class LowFloor(Cooler):
    """At 1e-30."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return (logits - logits.amax(-1, keepdim=True)) / max(self.config.value, 1e-30)


@plant("penalty_lowers_once", "negative logits are divided as well")
class DividesNegatives(Penalty):
    """Raises unlikely tokens."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
        return torch.where(seen, logits / self.config.penalty, logits)


@plant("penalty_lowers_once", "once per occurrence")
class PerOccurrence(Penalty):
    """Counts."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        for column in range(ids.shape[1]):
            logits = super().filter(logits, ids[:, column : column + 1])
        return logits


@plant("only_the_likeliest", "argmin for argmax")
class LeastLikely(Checked):
    """argmin."""

    law = "greedy"

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        best = logits.argmin(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))


@plant("neutral_is_identity", "a pinch of smoothing, always")
class Smooths(Cooler):
    """A thousandth."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return super().filter(logits, ids) * 0.999
