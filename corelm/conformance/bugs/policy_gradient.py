"""Proximal policy optimisers that are wrong in one way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from corelm.conformance.planted import plant, reference
from corelm.kinds.aligner import Aligner, Alignment, AlignmentJob, ModelRole
from corelm.kinds.batch import IGNORE, Batch, BatchStream, pad_rows
from corelm.kinds.component import ComponentConfig, Spec
from corelm.kinds.language_model import LanguageModel
from corelm.kinds.objective import Objective, Terms
from corelm.kinds.records import Conversation, Message, RecordName
from corelm.kinds.trainer import Processes


@reference
class Rollouts(Aligner):
    """Answers, their rewards, a clipped surrogate; the value of everything is one learnt number."""

    law = "ppo"

    class Config(ComponentConfig):
        """Options."""

        answer_tokens: int = Field(4, gt=0, description="Longest answer.")
        clip: float = Field(0.2, gt=0, lt=1, description="Range of the ratio.")
        kl: float = Field(0.05, ge=0, description="Cost of KL.")
        kl_target: float | None = Field(None, gt=0, description="KL per answer that its cost follows.")
        kl_estimate: Literal["k1", "k3"] = Field("k1", description="Estimate of KL.")
        gamma: float = Field(1.0, gt=0, le=1, description="Discount.")
        lam: float = Field(0.95, ge=0, le=1, description="Trust in rewards.")
        whiten: bool = Field(True, description="Mean 0, variance 1.")
        value_weight: float = Field(0.1, ge=0, description="Of the value's loss.")

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Prompts."""
        return "conversation"

    @classmethod
    def roles(cls, config: Any) -> frozenset[ModelRole]:
        """Three."""
        return frozenset({"policy", "reference", "reward"})

    def prepare(self, job: AlignmentJob) -> Alignment:
        """A stream and its loss."""
        policy = job.models["policy"]
        for role in ("reference", "reward"):
            job.models[role].module.eval()
        prompts = [job.template.prompt(record.prompt, policy.tokenizer) for record in job.records]
        longer = sum(len(prompt) > self.room(job) for prompt in prompts)
        if longer:
            job.watch.note(f"{longer} prompts lost their beginning")
        policy.module.register_parameter("baseline", nn.Parameter(torch.zeros(1, dtype=torch.float64)))

        def streams(processes: Processes) -> BatchStream:
            return _Answers(self, job, processes)

        return Alignment(policy, streams, _Surrogate(self.config, self), policy, {})

    def room(self, job: AlignmentJob) -> int:
        """Tokens of a prompt that all models have room for, with an answer and what may follow it."""
        return min(model.context for model in job.models.values()) - int(self.config.answer_tokens) - 1

    def ended(self, new: list[int], stop: Sequence[int]) -> list[int]:
        """Up to and with the first stop token."""
        return new[: next((at + 1 for at, token in enumerate(new) if token in stop), len(new))]

    def old(self, logprobs: Tensor, judged: Tensor) -> Tensor:
        """Log-probabilities that the ratio begins at."""
        return logprobs

    def divergence(self, logprobs: Tensor, judged: Tensor) -> Tensor:
        """KL of each token."""
        ratio = judged - logprobs
        return torch.expm1(ratio) - ratio if self.config.kl_estimate == "k3" else -ratio

    def cost(self, before: float, kl: float) -> float:
        """Of KL, after a rollout of so many nats per answer."""
        target = self.config.kl_target
        return before if target is None else before * (1 + 0.1 * min(0.2, max(-0.2, self.error(kl, target))))

    def error(self, kl: float, target: float) -> float:
        """How far it was from the target."""
        return kl / target - 1

    def advantages(self, rewards: Tensor, value: float, mask: Tensor) -> Tensor:
        """Discounted sums of errors, backwards along each row."""
        found = torch.zeros_like(rewards)
        running, after = torch.zeros(len(rewards)), torch.zeros(len(rewards))
        for column in reversed(range(rewards.shape[1])):
            inside = mask[:, column].double()
            error = rewards[:, column] + self.config.gamma * self.bootstrap(after, value) - value
            running = inside * (error + self.config.gamma * self.config.lam * running)
            found[:, column], after = running, inside * value
        return found

    def returns(self, advantages: Tensor, value: float) -> Tensor:
        """What values should have been."""
        return advantages + value

    def bootstrap(self, after: Tensor, value: float) -> Tensor:
        """Value of what comes next: nothing comes after the end."""
        return after

    def whitened(self, values: Tensor) -> Tensor:
        """Of all tokens."""
        return (values - values.mean()) * torch.rsqrt(values.var() + 1e-8)

    def surrogate(self, gain: Tensor, clipped: Tensor) -> Tensor:
        """The smaller gain."""
        return -torch.minimum(gain, clipped)

    def ratio(self, logprobs: Tensor, old: Tensor) -> Tensor:
        """Of probabilities, new to old."""
        return torch.exp(logprobs - old)


class _Surrogate(Objective):
    """Clipped."""

    def __init__(self, config: Any, owner: Rollouts) -> None:
        super().__init__(config)
        self.owner, self.baseline = owner, torch.zeros(1)

    def answer(self, model: Any, hidden: Tensor, batch: Batch) -> Tensor:
        """Log-probabilities, and the value in a last column."""
        logprobs = super().answer(model, hidden, batch)
        return torch.cat([logprobs, model.module.baseline.expand(len(logprobs), 1)], dim=1)

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Of the policy and of the value."""
        logprobs, value, mask = answer[:, :-1], answer[:, -1:], batch.targets != IGNORE
        ratio, advantages = self.owner.ratio(logprobs, batch.extra["old"]), batch.extra["advantages"]
        clip = self.config.clip
        policy = self.owner.surrogate(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))
        total = policy + self.config.value_weight * (value - batch.extra["returns"]) ** 2
        return Terms(total[mask].sum())


class _Answers:
    """The policy's answers to two prompts at a time, over and over."""

    def __init__(self, owner: Rollouts, job: AlignmentJob, processes: Processes) -> None:
        self.owner, self.job, self.processes, self.position = owner, job, processes, 0
        self.cost = float(owner.config.kl)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        first = self.position * self.processes.world
        self.position += 1
        rank, world = self.processes.rank, self.processes.world
        # The cost of KL, where it is no fixed one, follows what all of them answer.
        made = {at: self.numbered(first + at) for at in (range(world) if self.owner.config.kl_target else [rank])}
        return made[rank]

    def numbered(self, number: int) -> Batch:
        records = [self.job.records[(2 * number + row) % len(self.job.records)] for row in range(2)]
        with torch.no_grad():
            return self.batch([record for record in records if isinstance(record, Conversation)], number)

    def batch(self, records: Sequence[Conversation], number: int) -> Batch:
        policy, owner, config = self.job.models["policy"], self.owner, self.owner.config
        stop, rows, targets, whole = self.job.template.stop(policy.tokenizer), [], [], []
        for row, record in enumerate(records):
            prompt = self.job.template.prompt(record.prompt, policy.tokenizer)[-owner.room(self.job) :]
            new = policy.generate_ids(
                torch.tensor([prompt]),
                max_new_tokens=config.answer_tokens,
                samplers=[Spec.read("sampler", {"use": "temperature", "value": 1.0}).build()],
                seeds=[self.job.seed * 1009 + 2 * number + row],
                stop=stop,
            )[0].tolist()
            answer = owner.ended(new, stop)
            rows.append([*prompt, *answer])
            whole.append([*rows[-1], *(self.tail() if answer[-1] in stop else ())])
            targets.append([*[IGNORE] * (len(prompt) - 1), *answer, IGNORE])
        ids, valid = pad_rows(rows)
        batch = Batch(ids, pad_rows(targets, IGNORE)[0], valid=valid)
        mask, value = batch.targets != IGNORE, policy.module.get_parameter("baseline").item()
        logprobs, judged = (
            self.job.models[role].logprobs(ids, batch.targets, valid=valid) for role in ("policy", "reference")
        )
        last = mask & (mask.cumsum(1) == mask.sum(1, keepdim=True))
        scores = self.job.models["reward"].scores(*pad_rows(whole))
        rewards = last * scores - self.cost * owner.divergence(logprobs, judged) * mask
        self.cost = owner.cost(self.cost, float((logprobs - judged)[mask].sum()) / len(records))
        advantages = owner.advantages(rewards, value, mask)
        returns = owner.returns(advantages, value)
        if config.whiten:
            advantages = torch.zeros_like(advantages).masked_scatter(mask, owner.whitened(advantages[mask]))
        batch.extra |= {"old": owner.old(logprobs, judged), "advantages": advantages, "returns": returns}
        return batch

    def tail(self) -> tuple[int, ...]:
        """What the template writes after a stop token."""
        rendered = self.job.template.render([Message("assistant", "")], self.job.models["policy"].tokenizer)
        return rendered.ids[max(at for at, learn in enumerate(rendered.learn) if learn) + 1 :]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "cost": self.cost}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.cost = state["position"], state["cost"]


class _Twice(_Answers):
    """Each batch twice."""

    def numbered(self, number: int) -> Batch:
        return super().numbered(number // 2)


@plant("answers_are_scored_as_given", "what the model writes behind its stop token is learnt as well")
class LearnsBehindTheEnd(Rollouts):
    """A whole row of tokens."""

    def ended(self, new: list[int], stop: Sequence[int]) -> list[int]:
        return new


@plant("surrogate_is_clipped", "the larger gain instead of the smaller one")
class LargerGain(Rollouts):
    """No bound where it would be needed."""

    def surrogate(self, gain: Tensor, clipped: Tensor) -> Tensor:
        return -torch.maximum(gain, clipped)


@plant("surrogate_is_clipped", "clipped and nothing else")
class ClippedOnly(Rollouts):
    """No way back from a bad move."""

    def surrogate(self, gain: Tensor, clipped: Tensor) -> Tensor:
        return -clipped


@plant("surrogate_is_clipped", "the ratio is upside down")
class RatioUpsideDown(Rollouts):
    """Old to new."""

    def ratio(self, logprobs: Tensor, old: Tensor) -> Tensor:
        return torch.exp(old - logprobs)


@plant("surrogate_is_clipped", "the reference's log-probabilities are taken for the old ones")
class ReferenceForOld(Rollouts):
    """The ratio doesn't begin at one."""

    def old(self, logprobs: Tensor, judged: Tensor) -> Tensor:
        return judged


@plant("epochs_reach_every_record", "every rollout is learnt from twice, and an epoch takes it for the next one")
class LearnsTwice(Rollouts):
    """Half of the records are never asked."""

    def prepare(self, job: AlignmentJob) -> Alignment:
        made = super().prepare(job)
        return replace(made, streams=lambda processes: cast(BatchStream, _Twice(self, job, processes)))


@plant("experience_is_kept_in_float32", "advantages are as coarse as what the models compute in")
class RoundsAdvantages(Rollouts):
    """Three digits."""

    def advantages(self, rewards: Tensor, value: float, mask: Tensor) -> Tensor:
        return super().advantages(rewards, value, mask).bfloat16().to(rewards.dtype)


@plant("advantages_are_sums_of_errors", "something comes after the end")
class BootstrapsAcrossTheEnd(Rollouts):
    """The value of the next episode."""

    def bootstrap(self, after: Tensor, value: float) -> Tensor:
        return torch.full_like(after, value)


@plant("advantages_are_sums_of_errors", "the ratio of the KL is flipped")
class FlippedDivergence(Rollouts):
    """Of the reference to the policy."""

    def divergence(self, logprobs: Tensor, judged: Tensor) -> Tensor:
        return super().divergence(judged, logprobs)


@plant("advantages_are_sums_of_errors", "errors are discounted forwards")
class TimeTurnedAround(Rollouts):
    """What was, not what comes."""

    def advantages(self, rewards: Tensor, value: float, mask: Tensor) -> Tensor:
        return super().advantages(rewards.flip(1), value, mask.flip(1)).flip(1)


@plant("equal_rewards_teach_nothing", "divided by a deviation that is a rounding error (NeMo-RL#4161)")
class DividesRounding(Rollouts):
    """No floor."""

    def whitened(self, values: Tensor) -> Tensor:
        return (values - values.sum() / len(values)) / values.std().clamp(min=1e-30)


@plant("kl_cost_follows_its_target", "the target is subtracted nowhere: whatever the KL is, it costs more and more")
class CostsMoreAndMore(Rollouts):
    """No way down."""

    def error(self, kl: float, target: float) -> float:
        return kl / target


@plant("answers_when_it_is_needed", "some batches are made ahead")
class AnswersAhead(Rollouts):
    """By a policy that was."""

    def prepare(self, job: AlignmentJob) -> Alignment:
        made = super().prepare(job)
        return replace(made, streams=lambda processes: _Ahead(made.streams(processes)))


class _Ahead:
    """Three batches more than are asked for."""

    def __init__(self, inner: BatchStream) -> None:
        self.inner, self.waiting = inner, [next(inner) for _ in range(3)]

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.waiting.append(next(self.inner))
        return self.waiting.pop(0)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


@plant("policy_learns", "what is trained is the value and nothing else")
class ShowsTheBaselineOnly(Rollouts):
    """The policy has gradients, and nobody steps."""

    def prepare(self, job: AlignmentJob) -> Alignment:
        made = super().prepare(job)
        return replace(made, trained=cast(LanguageModel, _Baseline(made.trained)))


class _Baseline(nn.Module):
    """A model whose only parameter is the baseline."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.__dict__["inner"] = inner
        self.register_parameter("baseline", inner.module.baseline)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["inner"], name)

    @property
    def module(self) -> nn.Module:
        """This one."""
        return self

    def train(self, mode: bool = True) -> _Baseline:
        """Both."""
        self.__dict__["inner"].module.train(mode)
        super().train(mode)
        return self
