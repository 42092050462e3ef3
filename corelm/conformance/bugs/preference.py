"""Preference optimisers that are wrong about their loss, and aligners whose losses don't add up."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from corelm.conformance.bugs.aligner import Pairs, PairsLoss
from corelm.conformance.bugs.policy_gradient import Rollouts
from corelm.conformance.planted import plant, reference
from corelm.kinds.aligner import Alignment, AlignmentJob
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.objective import Terms


@reference
class Preferences(Pairs):
    """Pairs under the losses of three papers."""

    class Config(Pairs.Config):
        """Options."""

        loss: Literal["sigmoid", "ipo", "hinge"] = Field("sigmoid", description="Which.")
        label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of wrong labels, of sigmoid alone.")

    def prepare(self, job: AlignmentJob) -> Alignment:
        """With another loss."""
        alignment = super().prepare(job)
        alignment.objective = _NamedLoss(self.config, self)
        return alignment

    def pairs(self, policy: Tensor, judged: Tensor, batch: Batch) -> Tensor:
        """Loss of each pair."""
        if self.config.loss == "ipo":
            lengths = self.lengths(batch)
            return (self.margin(policy / lengths, judged / lengths) - 1 / (2 * self.config.beta)) ** 2
        z = self.logit(policy, judged)
        return F.relu(1 - z) if self.config.loss == "hinge" else self.smoothed(z, self.config.label_smoothing)

    def lengths(self, batch: Batch) -> Tensor:
        """Tokens of the answers."""
        return (batch.targets != IGNORE).sum(1)

    def smoothed(self, z: Tensor, share: float) -> Tensor:
        """Bradley–Terry."""
        return -(1 - share) * F.logsigmoid(z) - share * F.logsigmoid(-z)


class _NamedLoss(PairsLoss):
    """The loss that the owner's config names."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        owner: Any = self.owner
        return Terms(owner.pairs(answer.sum(1), batch.extra["judged"], batch).sum())


@plant("formula_of_its_loss", "labels are smoothed the wrong way round")
class SmoothsTheOther(Preferences):
    """ε and 1 − ε exchanged."""

    def smoothed(self, z: Tensor, share: float) -> Tensor:
        return super().smoothed(z, 1 - share if share else 0.0)


@plant("formula_of_its_loss", "sums where IPO has means")
class SumsForMeans(Preferences):
    """Long answers are taken to be far off."""

    def lengths(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch.ids))


@plant("finite_far_apart", "the logarithm of a sigmoid")
class LogOfSigmoidOfPairs(Preferences):
    """Underflows."""

    def smoothed(self, z: Tensor, share: float) -> Tensor:
        return -(1 - share) * z.sigmoid().log() - share * (-z).sigmoid().log()


@plant("chosen_gains_on_rejected", "the hinge opens to the wrong side")
class HingeTheWrongWay(Preferences):
    """Where chosen and rejected are exchanged in one of three losses."""

    def pairs(self, policy: Tensor, judged: Tensor, batch: Batch) -> Tensor:
        if self.config.loss == "hinge":
            return F.relu(1 + self.logit(policy, judged))
        return super().pairs(policy, judged, batch)


@plant("loss_is_additive", "a mean over the pairs of a batch")
class MeanOfPairs(Preferences):
    """The trainer divides once more."""

    def pairs(self, policy: Tensor, judged: Tensor, batch: Batch) -> Tensor:
        found = super().pairs(policy, judged, batch)
        return found / len(found)


@plant("only_answers_have_gradients", "log-probabilities of all tokens, of which the prompt's don't quite cancel")
class ReadsPrompts(Preferences):
    """As a pair's prompts are alike, nobody sees it in the margin."""

    def prepare(self, job: AlignmentJob) -> Alignment:
        alignment = super().prepare(job)
        alignment.objective = _AllTokens(self.config, self)
        return alignment


class _AllTokens(_NamedLoss):
    """Targets of prompts, too."""

    def answer(self, model: Any, hidden: Tensor, batch: Batch) -> Tensor:
        return super().answer(model, hidden, Batch(batch.ids, batch.ids.roll(-1, 1)))


@plant("values_learn_the_returns", "values are taught the advantages")
class AdvantagesForReturns(Rollouts):
    """Near zero for ever."""

    def returns(self, advantages: Tensor, value: float) -> Tensor:
        return advantages
