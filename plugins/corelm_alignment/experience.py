"""Experience: answers that the policy gives now, scored, as a resumable stream of batches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corelm.kinds import IGNORE, Batch, LanguageModel, Processes, Sampler, pad_rows, token_logprobs
from corelm_alignment.policy_gradient import (
    generalized_advantages,
    kl_k1,
    kl_k3,
    token_rewards,
    whitened,
)
from corelm_alignment.value import PolicyWithValue

Made = TypeVar("Made")

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

    Processes share a rollout by micro-batches of its rows, each padded as one process alone would: what they answer,
    score and read is gathered, so that all hold the whole of it. Of the micro-batches to learn from, r of n yields
    r, r + n, …; the n of one draw together are a round, and rollouts are gathered for whole rounds, by all at once.
    """

    def __init__(
        self,
        plan: RolloutPlan,
        policy: PolicyWithValue,
        reference: LanguageModel,
        reward: LanguageModel,
        kl_coefficient: KlCoefficient,
        processes: Processes | None = None,
    ) -> None:
        self.plan = plan
        self.policy, self.reference, self.reward = policy, reference, reward
        self.kl_coefficient = kl_coefficient
        self.processes = processes or Processes()
        self.held: dict[int, Experience] = {}
        self.drawn = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    @property
    def experience(self) -> Experience | None:
        """The newest rollout."""
        return self.held[max(self.held)] if self.held else None

    @property
    def rollouts(self) -> int:
        """How many rollouts the rounds so far have taken."""
        return -(-self.drawn * self.processes.world // self._per_rollout)

    @property
    def _per_epoch(self) -> int:
        return -(-self.plan.rollout // self.plan.batch)

    @property
    def _per_rollout(self) -> int:
        return self._per_epoch * self.plan.epochs

    def __next__(self) -> Batch:
        plan, first = self.plan, self.drawn * self.processes.world
        self.drawn += 1
        oldest = first // self._per_rollout
        self.held = {number: held for number, held in self.held.items() if number >= oldest}
        for number in range(oldest, self.rollouts):
            if number not in self.held:
                self.held[number] = self.gather(number)
        number, used = divmod(first + self.processes.rank, self._per_rollout)
        epoch, part = divmod(used, self._per_epoch)
        order = list(range(plan.rollout))
        random.Random(f"{plan.seed}/{number + 1}/{epoch}").shuffle(order)
        return self.held[number].rows(order[part * plan.batch : (part + 1) * plan.batch])

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
        seeds = [row_seed(plan.seed, number, row) for row in range(plan.rollout)]
        answered = self._share(lambda rows: self.answer(prompts[rows], seeds[rows]))
        answers = [answer for some, _ in answered for answer in some]
        score = torch.tensor([score for _, some in answered for score in some], dtype=torch.float64)
        ids, valid = pad_rows([(prompt + answer)[:-1] for prompt, answer in zip(prompts, answers, strict=True)])
        targets, _ = pad_rows(
            [(IGNORE,) * (len(prompt) - 1) + answer for prompt, answer in zip(prompts, answers, strict=True)], IGNORE
        )
        mask = targets != IGNORE
        read = self._share(lambda rows: self.read(ids[rows], targets[rows], valid[rows]))
        old, values, ref = (torch.cat(parts) for parts in zip(*read, strict=True))
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

    def _share(self, work: Callable[[slice], Made]) -> list[Made]:
        """What ``work`` makes of each micro-batch of the rollout's rows, in order; each process does its share."""
        starts = range(0, self.plan.rollout, self.plan.batch)
        rank, world = self.processes.rank, self.processes.world
        mine = [work(slice(start, start + self.plan.batch)) for start in starts[rank::world]]
        made = self.processes.gather(mine)
        return [made[number % world][number // world] for number in range(len(starts))]

    def prompt(self, place: int) -> tuple[int, ...]:
        """The prompt at this place of the endless sequence."""
        epoch, index = divmod(place, len(self.plan.prompts))
        order = list(range(len(self.plan.prompts)))
        random.Random(f"{self.plan.seed}/prompts/{epoch}").shuffle(order)
        return self.plan.prompts[order[index]]

    def answer(
        self, prompts: Sequence[tuple[int, ...]], seeds: Sequence[int]
    ) -> tuple[list[tuple[int, ...]], list[float]]:
        """Sample an answer to each prompt, its stop token included where it came; and the answers' scores."""
        ids, valid = pad_rows(prompts, left=True)
        new = self.policy.generate_ids(
            ids.to(self.policy.device),
            valid=valid.to(self.policy.device),
            max_new_tokens=self.plan.answer_tokens,
            samplers=self.plan.samplers,
            seeds=seeds,
            stop=self.plan.stop,
        )
        answers = [up_to_stop(row, self.plan.stop) for row in new.tolist()]
        return answers, self.scores(prompts, answers)

    def scores(self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> list[float]:
        """The reward model's score of each answer, at its last token, less the penalty where no stop token came."""
        plan, there = self.plan, self.reward.device
        stopped = [answer[-1] in plan.stop for answer in answers]
        rows = [
            prompt + answer + (plan.tail if ended else ())
            for prompt, answer, ended in zip(prompts, answers, stopped, strict=True)
        ]
        ids, valid = pad_rows(rows)
        found = self.reward.scores(ids.to(there), valid.to(there))[:, 0].tolist()
        return [s if ended else s - plan.missing_stop_penalty for s, ended in zip(found, stopped, strict=True)]

    def read(self, ids: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The policy's log-probabilities and values, and the reference's log-probabilities; 0 where no target is."""
        here, there = self.policy.device, self.reference.device
        hidden = self.policy.hidden(ids.to(here), valid=valid.to(here))
        old = token_logprobs(hidden, self.policy.head, targets.to(here)).cpu()
        values = self.policy.value_head(hidden)[..., 0].to(old.dtype).cpu()
        ref = self.reference.logprobs(ids.to(there), targets.to(there), valid=valid.to(there)).cpu()
        return old, torch.where(targets != IGNORE, values, 0.0), ref

    def state_dict(self) -> dict[str, Any]:
        """How many micro-batches were drawn, and the newest experience: the only one that the next can be of."""
        state: dict[str, Any] = {"drawn": self.drawn}
        if self.experience is not None:
            state["experience"] = {item.name: getattr(self.experience, item.name) for item in fields(Experience)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.drawn = int(state["drawn"])
        held = state.get("experience")
        self.held = {}
        if held is not None:
            self.held[self.rollouts - 1] = Experience(**{name: tensor.clone() for name, tensor in held.items()})


def row_seed(seed: int, rollout: int, row: int) -> int:
    """Seed of one row's sampling."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{rollout}/{row}".encode()).digest()[:7], "big")


def up_to_stop(row: Sequence[int], stop: Sequence[int]) -> tuple[int, ...]:
    """The row up to and with its first stop token."""
    end = next((place for place, token in enumerate(row) if token in stop), len(row) - 1)
    return tuple(row[: end + 1])
