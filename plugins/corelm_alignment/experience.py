"""Experience: answers that the policy gives now, scored, as a resumable stream of batches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corelm.kinds import IGNORE, Batch, LanguageModel, Sampler, pad_rows, token_logprobs
from corelm_alignment.policy_gradient import (
    generalized_advantages,
    kl_k1,
    kl_k3,
    token_rewards,
    whitened,
)
from corelm_alignment.value import PolicyWithValue

KL_ESTIMATES = {"k1": kl_k1, "k3": kl_k3}


@dataclass
class KlCoefficient:
    """What a nat of KL costs; follows the measured KL if there is a target (Ziegler et al., 2019, arXiv:1909.08593).

    After each rollout it is multiplied by 1 + gain · clip(KL/target − 1, ±0.2).
    """

    value: float
    target: float | None = None
    gain: float = 0.1

    def update(self, kl: float) -> None:
        """Take note of a rollout's mean KL per answer, in nats."""
        if self.target is not None:
            self.value *= 1 + self.gain * min(0.2, max(-0.2, kl / self.target - 1))

    def state_dict(self) -> dict[str, Any]:
        """The current value."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.value = float(state["value"])


@dataclass
class Experience:
    """One rollout. All tensors are (rows, time), aligned with the token that is *predicted* in a column.

    Attributes:
        ids: prompt and answer but its last token, padded on the right.
        targets: the answer's tokens, one column to the left; ``IGNORE`` elsewhere.
        valid: False at padding.
        old_logprobs: of the answer's tokens under the policy that gave it.
        old_values: value of the prefix before each token.
        advantages: whitened over the whole rollout where asked for.
        returns: what the values should have been.
        kl: estimate for each token.
        score: the reward model's, of the whole answer, at each of its tokens.
    """

    ids: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]
    valid: Bool[Tensor, "rows time"]
    old_logprobs: Float[Tensor, "rows time"]
    old_values: Float[Tensor, "rows time"]
    advantages: Float[Tensor, "rows time"]
    returns: Float[Tensor, "rows time"]
    kl: Float[Tensor, "rows time"]
    score: Float[Tensor, "rows time"]

    IN_BATCH: ClassVar[tuple[str, ...]] = ("ids", "targets", "valid")

    def rows(self, numbers: Sequence[int]) -> Batch:
        """Some rows as a batch, without columns that are padding in all of them."""
        picked = {item.name: getattr(self, item.name)[list(numbers)] for item in fields(self)}
        time = int(picked["valid"].sum(dim=1).max())
        picked = {name: tensor[:, :time].contiguous() for name, tensor in picked.items()}
        main = {name: picked.pop(name) for name in self.IN_BATCH}
        return Batch(**main, extra=picked, names=[f"row {number} of the rollout" for number in numbers])


@dataclass(frozen=True)
class RolloutPlan:
    """How experience is gathered; the options of the aligner's config of the same names.

    Attributes:
        prompts: token ids of every prompt.
        stop: ids that end an answer.
        tail: what the template writes after the stop token; the reward model sees it too.
    """

    prompts: Sequence[tuple[int, ...]]
    stop: tuple[int, ...]
    tail: tuple[int, ...]
    samplers: Sequence[Sampler]
    rollout: int
    epochs: int
    answer_tokens: int
    kl_estimate: str
    gamma: float
    lam: float
    whiten: bool
    missing_stop_penalty: float
    batch: int
    seed: int


class ExperienceStream:
    """Endless micro-batches. When a rollout is used up, the policy as it is then answers the next prompts.

    A rollout takes the next prompts of an endless sequence of permutations drawn from (seed, epoch), and one
    sampling seed per (seed, rollout, row). It is gone through ``epochs`` times, each time in another order.
    The state holds the experience in use, so that a stream resumed within a rollout yields the same bits.
    """

    def __init__(
        self,
        plan: RolloutPlan,
        policy: PolicyWithValue,
        reference: LanguageModel,
        reward: LanguageModel,
        kl_coefficient: KlCoefficient,
    ) -> None:
        self.plan = plan
        self.policy, self.reference, self.reward = policy, reference, reward
        self.kl_coefficient = kl_coefficient
        self.experience: Experience | None = None
        self.rollouts = 0
        self.used = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        plan = self.plan
        per_epoch = -(-plan.rollout // plan.batch)
        if self.experience is None or self.used == per_epoch * plan.epochs:
            self.experience = self.gather(self.rollouts)
            self.rollouts += 1
            self.used = 0
        epoch, part = divmod(self.used, per_epoch)
        order = list(range(plan.rollout))
        random.Random(f"{plan.seed}/{self.rollouts}/{epoch}").shuffle(order)
        self.used += 1
        return self.experience.rows(order[part * plan.batch : (part + 1) * plan.batch])

    def gather(self, number: int) -> Experience:
        """Let the policy answer, score the answers and estimate the advantages of rollout ``number``."""
        was_training = self.policy.training
        self.policy.eval()
        try:
            with torch.no_grad():
                return self._gather(number)
        finally:
            self.policy.train(was_training)

    def _gather(self, number: int) -> Experience:
        plan = self.plan
        prompts = [self.prompt(number * plan.rollout + row) for row in range(plan.rollout)]
        answers = self.answer(prompts, [row_seed(plan.seed, number, row) for row in range(plan.rollout)])
        score = torch.tensor(self.scores(prompts, answers), dtype=torch.float64)
        ids, valid = pad_rows([(prompt + answer)[:-1] for prompt, answer in zip(prompts, answers, strict=True)])
        targets, _ = pad_rows(
            [(IGNORE,) * (len(prompt) - 1) + answer for prompt, answer in zip(prompts, answers, strict=True)], IGNORE
        )
        mask = targets != IGNORE
        old, values, ref = self.read(ids, targets, valid)
        kl = KL_ESTIMATES[plan.kl_estimate](old, ref)
        rewards = token_rewards(score, kl, mask, self.kl_coefficient.value)
        advantages = generalized_advantages(rewards, values, mask, plan.gamma, plan.lam)
        returns = advantages + values
        # The coefficient follows the plain difference of log-probabilities, whatever the penalty is made of.
        self.kl_coefficient.update(float(kl_k1(old, ref)[mask].double().sum() / plan.rollout))
        if plan.whiten:
            advantages = whitened(advantages, mask)
        spread = torch.where(mask, score[:, None].to(old.dtype), 0.0)
        return Experience(ids, targets, valid, old, values, advantages, returns, kl, spread)

    def prompt(self, place: int) -> tuple[int, ...]:
        """The prompt at this place of the endless sequence."""
        epoch, index = divmod(place, len(self.plan.prompts))
        order = list(range(len(self.plan.prompts)))
        random.Random(f"{self.plan.seed}/prompts/{epoch}").shuffle(order)
        return self.plan.prompts[order[index]]

    def answer(self, prompts: Sequence[tuple[int, ...]], seeds: Sequence[int]) -> list[tuple[int, ...]]:
        """Sample an answer to each prompt, its stop token included where it came."""
        plan, answers = self.plan, []
        for start in range(0, len(prompts), plan.batch):
            ids, valid = pad_rows(prompts[start : start + plan.batch], left=True)
            new = self.policy.generate_ids(
                ids.to(self.policy.device),
                valid=valid.to(self.policy.device),
                max_new_tokens=plan.answer_tokens,
                samplers=plan.samplers,
                seeds=seeds[start : start + plan.batch],
                stop=plan.stop,
            )
            answers += [up_to_stop(row, plan.stop) for row in new.tolist()]
        return answers

    def scores(self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> list[float]:
        """The reward model's score of each answer, at its last token, less the penalty where no stop token came."""
        plan, scores = self.plan, []
        for start in range(0, len(prompts), plan.batch):
            some = range(start, min(start + plan.batch, len(prompts)))
            stopped = [answers[i][-1] in plan.stop for i in some]
            tails = [plan.tail if ended else () for ended in stopped]
            ids, valid = pad_rows([prompts[i] + answers[i] + tail for i, tail in zip(some, tails, strict=True)])
            there = self.reward.device
            found = self.reward.scores(ids.to(there), valid.to(there))[:, 0].tolist()
            scores += [s if ended else s - plan.missing_stop_penalty for s, ended in zip(found, stopped, strict=True)]
        return scores

    def read(self, ids: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The policy's log-probabilities and values, and the reference's log-probabilities; 0 where no target is."""
        pieces: list[tuple[Tensor, Tensor, Tensor]] = []
        here, there = self.policy.device, self.reference.device
        for start in range(0, len(ids), self.plan.batch):
            rows = slice(start, start + self.plan.batch)
            hidden = self.policy.hidden(ids[rows].to(here), valid=valid[rows].to(here))
            old = token_logprobs(hidden, self.policy.head, targets[rows].to(here)).cpu()
            values = self.policy.value_head(hidden)[..., 0].to(old.dtype).cpu()
            ref = self.reference.logprobs(
                ids[rows].to(there), targets[rows].to(there), valid=valid[rows].to(there)
            ).cpu()
            pieces.append((old, torch.where(targets[rows] != IGNORE, values, 0.0), ref))
        old, values, ref = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return old, values, ref

    def state_dict(self) -> dict[str, Any]:
        """Counters and the experience in use."""
        state: dict[str, Any] = {"rollouts": self.rollouts, "used": self.used}
        if self.experience is not None:
            state["experience"] = {item.name: getattr(self.experience, item.name) for item in fields(Experience)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.rollouts, self.used = int(state["rollouts"]), int(state["used"])
        held = state.get("experience")
        self.experience = None if held is None else Experience(**{k: v.clone() for k, v in held.items()})


def row_seed(seed: int, rollout: int, row: int) -> int:
    """Seed of one row's sampling."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{rollout}/{row}".encode()).digest()[:7], "big")


def up_to_stop(row: Sequence[int], stop: Sequence[int]) -> tuple[int, ...]:
    """The row up to and with its first stop token."""
    end = next((place for place, token in enumerate(row) if token in stop), len(row) - 1)
    return tuple(row[: end + 1])
