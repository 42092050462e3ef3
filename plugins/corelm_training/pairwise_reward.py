"""Rewards learnt from pairs of a chosen and a rejected answer."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import Answered, Batch, ComponentConfig, Objective, Terms


class PairwiseReward(Objective):
    """Bradley–Terry loss: the chosen answer's reward shall exceed the rejected one's.

    Rows 2i and 2i + 1 of a batch are chosen and rejected; one term per pair::

        −log σ(r_chosen − r_rejected − margin) + centre · (r_chosen + r_rejected)²

    The second term keeps rewards, which the first leaves free to drift together, near zero (Eisenstein et al., 2023,
    arXiv:2312.09244). Ouyang et al., 2022, arXiv:2203.02155; margin: Touvron et al., 2023, arXiv:2307.09288. Figures:
    ``accuracy`` (chosen above rejected; ties count half) and ``margin`` (reward difference).
    """

    reads: ClassVar[Answered] = "rewards"

    class Config(ComponentConfig):
        """The margin and the pull to zero."""

        margin: float = Field(0.0, ge=0, description="Difference of rewards below which a pair counts as wrong.")
        centre: float = Field(0.01, ge=0, description="Weight of the squared sum of a pair's rewards.")

    def count(self, batch: Batch) -> int:
        """Number of pairs."""
        rows = batch.ids.shape[0]
        if rows % 2:
            raise UserError(
                f"objective pairwise-reward: a batch of {rows} rows does not consist of pairs",
                remedy="Give the stage a source of preferences and a packer that keeps pairs together.",
                code="pairs-incomplete",
            )
        return rows // 2

    def loss(self, answer: Float[Tensor, "batch 1"], batch: Batch) -> Terms:
        """Sum over pairs, in float32 or wider."""
        rewards = (answer.double() if answer.dtype.itemsize == 8 else answer.float())[:, 0]
        chosen, rejected = rewards[0::2], rewards[1::2]
        difference = chosen - rejected
        total = -F.logsigmoid(difference - self.config.margin).sum()
        total = total + self.config.centre * (chosen + rejected).square().sum()
        difference = difference.detach()
        accuracy = (difference > 0).sum() + 0.5 * (difference == 0).sum()
        return Terms(total, {"accuracy": accuracy, "margin": difference.sum()})
