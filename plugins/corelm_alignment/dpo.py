"""Direct preference optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import (
    IGNORE,
    Aligner,
    Alignment,
    AlignmentJob,
    Batch,
    ComponentConfig,
    ModelRole,
    Objective,
    Preference,
    Problem,
    Processes,
    RecordName,
    Terms,
)
from corelm_alignment.losses import hinge_loss, ipo_loss, margin, sigmoid_loss
from corelm_alignment.pairs import PairStream, render_pairs
from corelm_alignment.roles import take_models


class DirectPreference(Aligner):
    """Direct preference optimisation (Rafailov et al., 2023, arXiv:2305.18290), with IPO and hinge losses.

    Learns from pairs of answers without a reward model: the policy's log-probability ratio to a frozen reference
    is its implicit reward. Only the answers and their stop tokens count. Pairs longer than the model's
    context lose the beginning of their prompt, the same in both rows; pairs with an answer that does not fit are
    left out; a note counts both. Dropout, where the model has any, acts on the policy only.
    """

    class Config(ComponentConfig):
        """Options."""

        beta: float = Field(0.1, gt=0, description="How strongly the policy is held to the reference.")
        loss: Literal["sigmoid", "ipo", "hinge"] = Field(
            "sigmoid", description="sigmoid and hinge read summed log-probabilities, ipo averages over the answer."
        )
        label_smoothing: float = Field(
            0.0, ge=0, lt=0.5, description="Share of labels taken to be wrong; sigmoid loss only."
        )

    @classmethod
    def check(cls, config: Config, context: object) -> Iterator[Problem]:
        """Label smoothing is defined for the sigmoid loss only."""
        if config.label_smoothing and config.loss != "sigmoid":
            yield Problem(
                ("label_smoothing",),
                f"label_smoothing {config.label_smoothing} has no meaning for the loss {config.loss}",
                "Leave it out, or use loss: sigmoid.",
                "label-smoothing-needs-sigmoid",
            )

    @classmethod
    def reads(cls, config: Config) -> RecordName:
        """Preferences."""
        return "preference"

    @classmethod
    def roles(cls, config: Config) -> frozenset[ModelRole]:
        """Policy and reference."""
        return frozenset({"policy", "reference"})

    def prepare(self, job: AlignmentJob) -> Alignment:
        """Render the pairs and wrap them in streams."""
        policy, reference = take_models(job, "reference")
        context = min(policy.context, reference.context)
        pairs = render_pairs(
            cast("Sequence[Preference]", job.records), job.template, policy.tokenizer, context, job.watch
        )

        def streams(processes: Processes) -> PairStream:
            return PairStream(pairs, reference, job.batch, job.seed, processes.rank, processes.world)

        return Alignment(policy, streams, PreferenceObjective(self.config), policy, {})


class PreferenceObjective(Objective):
    """Loss of a batch of pairs; one term per pair. Reads ``extra["reference_sum"]``."""

    def count(self, batch: Batch) -> int:
        """Number of pairs."""
        return batch.ids.shape[0] // 2

    def loss(self, answer: Float[Tensor, "rows time"], batch: Batch) -> Terms:
        """Sum of the pairs' losses; figures per pair: reward margin, accuracy, log-probabilities."""
        policy_sum = answer.sum(dim=1)
        reference_sum = batch.extra["reference_sum"].to(policy_sum.dtype)
        losses, rewards_margin = self.per_pair(policy_sum, reference_sum, (batch.targets != IGNORE).sum(dim=1))
        sums = {
            "reward_margin": rewards_margin.sum(),
            "accuracy": (rewards_margin > 0).to(policy_sum.dtype).sum(),
            "chosen_logprob": policy_sum[0::2].sum(),
            "rejected_logprob": policy_sum[1::2].sum(),
        }
        return Terms(losses.sum(), {name: value.detach() for name, value in sums.items()})

    def per_pair(self, policy_sum: Tensor, reference_sum: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and difference of the implicit rewards of each pair."""
        config: Any = self.config
        if config.loss == "ipo":
            policy_mean, reference_mean = policy_sum / lengths, reference_sum / lengths
            four = policy_mean[0::2], policy_mean[1::2], reference_mean[0::2], reference_mean[1::2]
            return ipo_loss(*four, beta=config.beta), config.beta * margin(*four)
        four = policy_sum[0::2], policy_sum[1::2], reference_sum[0::2], reference_sum[1::2]
        rewards_margin = config.beta * margin(*four)
        if config.loss == "hinge":
            return hinge_loss(*four, beta=config.beta), rewards_margin
        return sigmoid_loss(*four, beta=config.beta, label_smoothing=config.label_smoothing), rewards_margin
