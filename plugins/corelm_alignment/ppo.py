"""Proximal policy optimisation against a reward model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import (
    IGNORE,
    Aligner,
    Alignment,
    AlignmentJob,
    Batch,
    ComponentConfig,
    Conversation,
    Count,
    Head,
    LanguageModel,
    Message,
    ModelRole,
    Objective,
    Problem,
    Processes,
    RecordName,
    Sampler,
    Spec,
    Template,
    Terms,
    Tokenizer,
    token_logprobs,
    use,
)
from corelm_alignment.experience import ExperienceStream, KlCoefficient, RolloutPlan
from corelm_alignment.policy_gradient import clipped_policy_loss, clipped_value_loss, masked_sum
from corelm_alignment.roles import take_models
from corelm_alignment.value import PolicyWithValue


class ProximalPolicy(Aligner):
    """Proximal policy optimisation (Schulman et al., 2017, arXiv:1707.06347) against a reward model.

    As for language models by Ziegler et al. (2019, arXiv:1909.08593) and Ouyang et al. (2022, arXiv:2203.02155):
    the policy answers prompts; the reward model scores each whole answer, and the score is the reward of the
    answer's last token (its stop token, where one came); every token also pays for its KL to a frozen reference.
    A value head on the policy's body is the baseline. Losses are per token and summed; the trainer divides by the
    number of answer tokens. Log-probabilities are of the raw logits, whatever the samplers filter. Rollouts are
    made without dropout; the ratio of the first pass is 1 only where the policy has none.

    Prompts longer than the context less ``answer_tokens`` lose their beginning; a note counts them.
    """

    revision: ClassVar[int] = 2

    class Config(ComponentConfig):
        """Options."""

        rollout: Count = Field(64, ge=1, description="Answers gathered at a time.")
        epochs: int = Field(4, ge=1, description="How often each rollout is gone through.")
        answer_tokens: Count = Field(64, ge=1, description="Longest answer, in tokens.")
        sampler: list[Spec[Sampler]] = Field(
            [use("temperature", value=1.0)], min_length=1, description="Filters of the sampled answers, in order."
        )
        value: Spec[Head] = Field(use("scalar"), description="The value head.")
        kl: float = Field(0.05, ge=0, description="Cost of a nat of KL to the reference.")
        kl_estimate: Literal["k1", "k3"] = Field("k1", description="Estimate of the KL of a token.")
        kl_target: float | None = Field(
            None, gt=0, description="KL per answer, in nats, that the cost is adapted to; null for a fixed cost."
        )
        missing_stop_penalty: float = Field(0.0, ge=0, description="Taken from the score of an answer without end.")
        gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
        lam: float = Field(
            0.95, ge=0, le=1, description="λ of the advantage estimate: 0 trusts the values, 1 the rewards."
        )
        whiten: bool = Field(True, description="Whether advantages get mean 0 and variance 1 over each rollout.")
        clip: float = Field(0.2, gt=0, lt=1, description="How far a token's probability ratio may move.")
        value_clip: float = Field(0.2, gt=0, description="How far a value may move.")
        value_weight: float = Field(0.1, ge=0, description="Weight of the value loss.")

    @classmethod
    def check(cls, config: Config, context: Any) -> Iterator[Problem]:
        """Answers must leave room for a prompt, where the recipe says how long the context is."""
        section = context.get("model") if isinstance(context, Mapping) else None
        longest = section.get("context") if isinstance(section, Mapping) else None
        if isinstance(longest, int) and config.answer_tokens >= longest:
            yield Problem(
                ("answer_tokens",),
                f"answers of {config.answer_tokens} tokens leave no room for a prompt in a context of {longest}",
                f"Use answer_tokens below {longest}, or a longer model.context.",
                "answer-fills-context",
            )

    @classmethod
    def reads(cls, config: Config) -> RecordName:
        """Conversations; their last answers are not used."""
        return "conversation"

    @classmethod
    def roles(cls, config: Config) -> frozenset[ModelRole]:
        """Policy, reference and reward."""
        return frozenset({"policy", "reference", "reward"})

    @classmethod
    def passes(cls, config: Any) -> int:
        """As often as each rollout."""
        return int(config.epochs)

    def prepare(self, job: AlignmentJob) -> Alignment:
        """Put a value head on the policy, and say how the stream of experience is made."""
        config: Any = self.config
        policy, reference, reward = take_models(job, "reference", "reward")
        if reward.head.reads != "scalar":
            raise UserError(
                f"the model in the role 'reward' has a head that reads {reward.head.reads}, not a score",
                remedy="Name a stage that trains a reward model.",
                code="not-a-reward-model",
            )
        trained = PolicyWithValue(policy, config.value, job.seed)
        coefficient = KlCoefficient(config.kl, config.kl_target)
        plan = self._plan(job, policy)

        def streams(processes: Processes) -> ExperienceStream:
            return ExperienceStream(plan, trained, reference, reward, coefficient, processes)

        return Alignment(
            cast(LanguageModel, trained), streams, ClippedObjective(config), policy, {"kl_coefficient": coefficient}
        )

    def _plan(self, job: AlignmentJob, policy: LanguageModel) -> RolloutPlan:
        config: Any = self.config
        tokenizer, tail = policy.tokenizer, after_stop(job.template, policy.tokenizer)
        context = min(policy.context, job.models["reference"].context, job.models["reward"].context - len(tail))
        room = context - config.answer_tokens
        if room < 1:
            raise UserError(
                f"answer_tokens {config.answer_tokens} leaves no room for a prompt in a context of {context} tokens",
                remedy=f"Use answer_tokens of at most {context - 1}.",
                code="answer-fills-context",
            )
        prompts = [render_prompt(record, job.template, tokenizer) for record in _conversations(job.records)]
        longer = sum(len(prompt) > room for prompt in prompts)
        if longer:
            job.watch.note(f"{longer} of {len(prompts)} prompts lost their beginning; only {room} tokens fit")
        return RolloutPlan(
            prompts=[prompt[-room:] for prompt in prompts],
            stop=job.template.stop(tokenizer),
            tail=tail,
            samplers=[spec.build() for spec in config.sampler],
            batch=job.batch,
            seed=job.seed,
            **{name: getattr(config, name) for name in _SHARED},
        )


_SHARED = ("rollout", "epochs", "answer_tokens", "kl_estimate", "gamma", "lam", "whiten", "missing_stop_penalty")


def _conversations(records: Sequence[Any]) -> list[Conversation]:
    if not records:
        raise UserError("there are no prompts to answer", remedy="Check the stage's data.", code="no-prompts")
    return list(records)


def render_prompt(record: Conversation, template: Template, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens after which the policy is to answer.

    Raises:
        UserError: there is nothing to answer.
    """
    prompt = template.prompt(record.prompt, tokenizer)
    if not prompt:
        raise UserError(
            f"{record.name or 'a conversation'} has no turn to be answered",
            remedy="Each conversation needs a turn before the assistant's.",
            code="no-prompt",
        )
    return prompt


def after_stop(template: Template, tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the template writes after an answer's stop token, e.g. a line break."""
    rendered = template.render([Message("user", ""), Message("assistant", "")], tokenizer)
    last = max((place for place, learn in enumerate(rendered.learn) if learn), default=len(rendered.ids) - 1)
    return rendered.ids[last + 1 :]


class ClippedObjective(Objective):
    """Clipped policy and value losses; one term per token of the answers."""

    def answer(self, model: LanguageModel, hidden: Tensor, batch: Batch) -> Float[Tensor, "rows time 2"]:
        """Log-probability of each target, and the value before it."""
        logprobs = token_logprobs(hidden, model.head, batch.targets)
        values = torch.zeros_like(logprobs)
        mask = batch.targets != IGNORE
        picked: Tensor = cast(PolicyWithValue, model).value_head(hidden[mask])[:, 0]
        return torch.stack([logprobs, values.masked_scatter(mask, picked.to(values.dtype))], dim=-1)

    def loss(self, answer: Float[Tensor, "rows time 2"], batch: Batch) -> Terms:
        """Sum over the answers' tokens; figures per token."""
        config: Any = self.config
        mask = batch.targets != IGNORE
        logprobs, values = answer.unbind(-1)
        old = {name: tensor.to(logprobs.dtype) for name, tensor in batch.extra.items()}
        policy = masked_sum(clipped_policy_loss(logprobs, old["old_logprobs"], old["advantages"], config.clip), mask)
        value = masked_sum(clipped_value_loss(values, old["old_values"], old["returns"], config.value_clip), mask)
        ratio = torch.exp(logprobs - old["old_logprobs"])
        sums = {
            "policy_loss": policy,
            "value_loss": value,
            "clipped": masked_sum(((ratio - 1).abs() > config.clip).to(logprobs.dtype), mask),
            "kl": masked_sum(old["kl"], mask),
            "score": masked_sum(old["score"], mask),
        }
        return Terms(policy + config.value_weight * value, {name: total.detach() for name, total in sums.items()})
