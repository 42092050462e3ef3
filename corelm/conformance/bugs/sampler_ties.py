"""Samplers that are wrong about equals."""

from __future__ import annotations

import torch
from torch import Tensor

from corelm.conformance.bugs.sampler import Largest, Nucleus, Penalty
from corelm.conformance.planted import plant


@plant("equals_at_the_edge", "what equals the k-th is dropped, and with it the k-th")
class DropsEquals(Largest):
    """Fewer than k, and none where all are equal."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        following = logits.sort(descending=True).values[:, min(self.config.k, logits.shape[-1] - 1), None]
        kept = (logits > following) | (self.config.k >= logits.shape[-1])
        return logits.masked_fill(~kept, -torch.inf)


@plant("nucleus_is_minimal", "the nucleus is found by its least probability, and takes all that equal it")
class TakesAllEquals(Nucleus):
    """More than needed."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        kept = super().filter(logits, ids)
        least = kept.masked_fill(kept == -torch.inf, torch.inf).amin(-1, keepdim=True)
        return logits.masked_fill(logits < least, -torch.inf)


@plant("penalty_lowers_once", "the logarithm of the penalty is taken off, whatever the size of the logit")
class TakesOff(Penalty):
    """Another penalty under the same name."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
        return torch.where(seen, logits - (self.config.penalty - 1), logits)


@plant("a_distribution", "computed in float64, and left there")
class LeavesDouble(Nucleus):
    """Another dtype than was given."""

    def filter(self, logits: Tensor, ids: Tensor) -> Tensor:
        return super().filter(logits.double(), ids)
