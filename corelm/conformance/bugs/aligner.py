"""Aligners that are wrong in one way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.kinds.aligner import Aligner, Alignment, AlignmentJob, ModelRole
from corelm.kinds.batch import IGNORE, Batch, BatchStream
from corelm.kinds.component import ComponentConfig
from corelm.kinds.objective import Objective, Terms
from corelm.kinds.records import Message, Preference, RecordName
from corelm.kinds.trainer import Processes


@reference
class Pairs(Aligner):
    """Direct preferences, one pair after the other."""

    law = "dpo"

    class Config(ComponentConfig):
        """Options."""

        beta: float = Field(0.1, gt=0, description="Strength.")

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Preferences."""
        return "preference"

    @classmethod
    def roles(cls, config: Any) -> frozenset[ModelRole]:
        """Two."""
        return frozenset({"policy", "reference"})

    def prepare(self, job: AlignmentJob) -> Alignment:
        """A stream and its loss."""
        policy = job.models["policy"]
        job.models["reference"].module.eval()
        records: Any = [record for record in job.records if self.fits(record, job)]
        long = sum(self.tells(record, job) for record in job.records)
        if long:
            job.watch.note(f"{self.told(long)} pairs don't fit, or not with all of their prompt")
        job = replace(job, records=records)

        def streams(processes: Processes) -> BatchStream:
            return _Pairs(self, job, *self.place(processes))

        return Alignment(policy, streams, PairsLoss(self.config, self), policy, {})

    def fits(self, record: Any, job: AlignmentJob) -> bool:
        """Whether all models have room for it, and for a token of its prompt."""
        return self.excess(record, job) < len(job.template.prompt(record.prompt, job.models["policy"].tokenizer))

    def over(self, record: Any, job: AlignmentJob) -> int:
        """By how many tokens it is longer than there is room for."""
        turns = [[*record.prompt, Message("assistant", answer)] for answer in (record.chosen, record.rejected)]
        longest = max(len(job.template.render(turn, job.models["policy"].tokenizer).ids) for turn in turns)
        return longest - self.room(job)

    def excess(self, record: Any, job: AlignmentJob) -> int:
        """Tokens of its prompt that are cut off."""
        return max(0, self.over(record, job))

    def tells(self, record: Any, job: AlignmentJob) -> bool:
        """Whether it counts in the note."""
        return self.over(record, job) > 0

    def room(self, job: AlignmentJob) -> int:
        """Of all models."""
        return min(model.context for model in job.models.values())

    def told(self, left_out: int) -> int:
        """What is said of them."""
        return left_out

    def place(self, processes: Processes) -> tuple[int, int]:
        """Which of how many streams is this process's."""
        return processes.rank, processes.world

    def learnt(self, start: int, length: int) -> int:
        """From which token on targets are learnt."""
        return start

    def judge(self, model: Any, batch: Batch) -> Tensor:
        """Sums of the reference."""
        with torch.no_grad():
            sums: Tensor = model.logprobs(batch.ids, batch.targets, valid=batch.valid).sum(1)
        return sums

    def state(self, position: int) -> int:
        """What is saved."""
        return position

    def logit(self, policy: Tensor, judged: Tensor) -> Tensor:
        """z of each pair."""
        return self.config.beta * self.margin(policy, judged)

    def margin(self, policy: Tensor, judged: Tensor) -> Tensor:
        """Difference of the ratios."""
        ratio = policy - judged
        return ratio[0::2] - ratio[1::2]


class PairsLoss(Objective):
    """Minus the log-sigmoid."""

    def __init__(self, config: Any, owner: Pairs) -> None:
        super().__init__(config)
        self.owner = owner

    def count(self, batch: Batch) -> int:
        return len(batch.ids) // 2

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return Terms(-F.logsigmoid(self.owner.logit(answer.sum(1), batch.extra["judged"])).sum())


class _Pairs:
    """Batches of whole records, over and over."""

    def __init__(self, owner: Pairs, job: AlignmentJob, rank: int, world: int) -> None:
        self.owner, self.job, self.position, self.rank, self.world = owner, job, 0, rank, world

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        records, count = self.job.records, self.job.batch
        first = (self.position * self.world + self.rank) * count
        chosen = [records[(first + n) % len(records)] for n in range(count)]
        self.position += 1
        return self.batch([record for record in chosen if isinstance(record, Preference)])

    def batch(self, records: list[Preference]) -> Batch:
        tokenizer, template = self.job.models["policy"].tokenizer, self.job.template
        rows = []
        for record in records:
            cut = self.owner.excess(record, self.job)
            start = len(template.prompt(record.prompt, tokenizer)) - cut
            for answer in (record.chosen, record.rejected):
                ids = template.render([*record.prompt, Message("assistant", answer)], tokenizer).ids[cut:]
                first = self.owner.learnt(start, len(ids))
                rows.append((ids, [*[t if at >= first else IGNORE for at, t in enumerate(ids)][1:], IGNORE]))
        width = max(len(ids) for ids, _ in rows)
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row, _ in rows])
        targets = torch.tensor([[*row, *[IGNORE] * (width - len(row))] for _, row in rows])
        valid = torch.tensor([[at < len(row) for at in range(width)] for row, _ in rows])
        batch = Batch(tokens, targets, valid=valid)
        batch.extra["judged"] = self.owner.judge(self.job.models["reference"], batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.owner.state(self.position)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


@plant("others_stay_frozen", "the reference's own weights drift along")
class ReferenceDrifts(Pairs):
    """Trained."""

    def judge(self, model: Any, batch: Batch) -> Tensor:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.001)
        return super().judge(model, batch)

    def prepare(self, job: AlignmentJob) -> Alignment:
        job.models["reference"].module.train()
        return super().prepare(job)


@plant("rows_fit_every_model", "what the policy has room for is taken to be what the reference has room for")
class LooksAtThePolicyOnly(Pairs):
    """Other positions than the reference has learnt."""

    def room(self, job: AlignmentJob) -> int:
        return job.models["policy"].context


@plant("rows_fit_every_model", "pairs that don't fit are counted downwards")
class CountsDown(Pairs):
    """−2 of them."""

    def told(self, left_out: int) -> int:
        return -left_out


@plant("what_is_cut_is_told", "a pair with a long prompt is given up")
class GivesUpLongPrompts(Pairs):
    """Two answers that would have fitted."""

    def fits(self, record: Any, job: AlignmentJob) -> bool:
        return self.excess(record, job) == 0


@plant("what_is_cut_is_told", "a pair that just fits is counted among those that don't")
class CountsWhatJustFits(Pairs):
    """One too many."""

    def tells(self, record: Any, job: AlignmentJob) -> bool:
        return self.over(record, job) >= 0


@plant("policy_learns", "the policy is detached")
class DetachedPolicy(Pairs):
    """Nothing to learn."""

    def logit(self, policy: Tensor, judged: Tensor) -> Tensor:
        return super().logit(policy.detach(), judged) + 0 * policy[0::2]


@plant("experience_resumes", "the stream begins over")
class BeginsOver(Pairs):
    """Always from the start."""

    def state(self, position: int) -> int:
        return 0 if position else 1


@plant("processes_share_the_work", "every process learns from the same batches")
class SameForAll(Pairs):
    """As if each were alone."""

    def place(self, processes: Processes) -> tuple[int, int]:
        return 0, 1


@plant("answers_are_learnt", "the prompt's last token is learnt as well (OpenRLHF#465)")
class LearnsThePrompt(Pairs):
    """A shift by one."""

    def learnt(self, start: int, length: int) -> int:
        return start - 1


@plant("antisymmetric", "the margin is clamped")
class ClampedMargin(Pairs):
    """At zero."""

    def margin(self, policy: Tensor, judged: Tensor) -> Tensor:
        return super().margin(policy, judged).clamp(min=0)


@plant("ln_two_at_the_reference", "the reference is not subtracted")
class NoReference(Pairs):
    """The policy alone."""

    def margin(self, policy: Tensor, judged: Tensor) -> Tensor:
        return super().margin(policy, 0 * judged)


@plant("needs_are_declared", "nobody is trained")
class NobodyIsTrained(Pairs):
    """No policy."""

    @classmethod
    def roles(cls, config: Any) -> frozenset[Any]:
        return frozenset({"reference"})
