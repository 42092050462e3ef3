"""Mistakes that are made again and again in objectives, adapters, optimizers, schedules and trainers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bugs.learning import Likelihood, LowRankLinear, Pairwise, _variant
from corelm.conformance.bugs.optimizer import Moments, Orthogonal
from corelm.conformance.bugs.schedule import HalfCosine
from corelm.conformance.bugs.trainer import Loop
from corelm.conformance.planted import plant
from corelm.kinds.batch import Batch
from corelm.kinds.objective import Terms
from corelm.kinds.parameters import Linear, ParameterInfo
from corelm.kinds.trainer import TrainingJob


@plant("no_target_no_gradient", "the end of text is the padding token as well, so that nobody learns to stop")
class EndIsPadding(Likelihood):
    """targets != pad."""

    def kept(self, batch: Batch) -> Tensor:
        return super().kept(batch) & (batch.targets != 0)


@plant("additive", "rows are averaged before they are summed: a short answer's tokens weigh more")
class MeanOfRows(Likelihood):
    """The mean over the batch of means over tokens."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        terms, kept = super().loss(answer, batch), self.kept(batch)
        rows = answer.where(kept, 0.0).sum(1) / kept.sum(1).clamp(min=1)
        return Terms(-rows.mean() * self.count(batch), terms.sums)


@plant("antisymmetric", "all chosen answers are taken to come first, all rejected ones after them")
class HalvesForPairs(Pairwise):
    """chunk(2) where neighbours are pairs."""

    def difference(self, answer: Tensor) -> Tensor:
        chosen, rejected = answer[:, 0].chunk(2)
        return chosen - rejected


@plant("finite_when_wrong", "the logarithm of a sigmoid, which underflows")
class LogOfSigmoid(Pairwise):
    """log(sigmoid(z)) in place of logsigmoid(z)."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return Terms(-torch.sigmoid(self.difference(answer)).log().sum())


def _merged_into_the_base(self: Any) -> Linear:
    merged = LowRankLinear.merged(self)
    with torch.no_grad():
        self.base.weight.copy_(merged.weight)
    return merged


def _wide(self: Any, linear: Linear, rank: int) -> None:
    LowRankLinear.declare_both(self, linear, rank)
    self.a.data, self.b.data = self.a.data.double(), self.b.data.double()


def _drops(self: Any, x: Tensor) -> Tensor:
    y: Tensor = self.base(x) + self.factor * (torch.nn.functional.dropout(x, 0.1) @ self.a.T @ self.b.T)
    return y


plant("merged_equals_wrapped", "merging changes the base, so that it is merged again the next time")(
    _variant("MergesIntoTheBase", merged=_merged_into_the_base)
)
plant("merged_equals_wrapped", "the factor is applied twice")(
    _variant("FactorTwice", scale=lambda self: self.factor**2)
)
plant("additions_are_declared", "additions are wider than the map that they are added to")(
    _variant("WideAdditions", declare_both=_wide)
)
plant("merged_equals_wrapped", "dropout of the addition stays on in evaluation")(
    _variant("DropsAdditionsInEvaluation", forward=_drops)
)


@plant("first_step_of_adamw", "the two betas are swapped")
class SwapsTheBetas(Moments):
    """β₂ for the mean."""

    def __init__(self, config: Any, parameters: Any) -> None:
        super().__init__(config.model_copy(update={"betas": config.betas[::-1]}), parameters)


@plant("first_step_of_adamw", "gradients are clipped in secret")
class HiddenClipping(Moments):
    """clamp(−1, 1)."""

    def gradient(self, p: Tensor, info: ParameterInfo) -> Tensor | None:
        return None if p.grad is None else p.grad.clamp(-1, 1)


@plant("first_step_of_adamw", "eps is added before the correction of the second moment (pytorch#22628)")
class CorrectsEps(Moments):
    """(√v + eps) / √(1 − β₂ᵗ)."""

    def denominator(self, square: Tensor, correction: float) -> Tensor:
        return (square.sqrt() + self.config.eps) / correction**0.5


@plant("decay_is_decoupled", "weights shrink after the step, and with them the step itself")
class ShrinksTheStep(Moments):
    """p ← (p − step)(1 − lr·wd), and the decay of a tied rate."""

    def shrink(self, p: Tensor, info: ParameterInfo, rate: float) -> None:
        if self.decays(info):
            p.mul_(1 - rate * self.config.weight_decay / 2)


@plant("turns_with_the_gradient", "columns are normalised, which is orthogonal for tall matrices only")
class NormalisesColumns(Orthogonal):
    """Not a rotation."""

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient / gradient.norm(dim=0, keepdim=True).clamp(min=1e-12)


@plant("shape_of_its_name", "the curve is cut off at a floor that it should approach")
class CutAtAFloor(HalfCosine):
    """max() of curve and floor."""

    def fall(self, progress: float) -> float:
        return max(0.0, super().fall(progress) - 0.01)


@plant("gradients_are_the_mean_loss", "gradients of the step before are still there")
class StaleGradients(Loop):
    """zero_grad is missing."""

    def clear(self, optimizer: Any) -> None:
        pass


@plant("accumulation_is_one_batch", "each micro-batch's gradient is clipped, and the sum isn't")
class ClipsMicroBatches(Loop):
    """Too early."""

    def gradients(self, job: TrainingJob, batches: Sequence[Batch], step: int, optimizer: Any) -> float:
        kept: list[Tensor | None] = [None for _ in optimizer.parameters]
        total = 0.0
        for batch in batches:
            optimizer.zero_grad()
            total += super().gradients(job, [batch], step, optimizer) / len(batches)
            for n, (_, p, _) in enumerate(optimizer.parameters):
                if p.grad is not None:
                    share = p.grad.clone() / len(batches)
                    before = kept[n]
                    kept[n] = share if before is None else before + share
        for (_, p, _), gradient in zip(optimizer.parameters, kept, strict=True):
            p.grad = gradient
        return total
