"""Preference pairs as tokens, and a resumable stream of batches of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import (
    IGNORE,
    Batch,
    LanguageModel,
    Message,
    Preference,
    Template,
    Tokenizer,
    Watch,
    pad_rows,
)


@dataclass(frozen=True)
class Answer:
    """A prompt and one answer to it as tokens; ``targets[t]`` is the token to learn after ``ids[t]``, or IGNORE."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """A chosen and a rejected answer to the same prompt."""

    chosen: Answer
    rejected: Answer
    name: str = ""


def render_answer(prompt: Sequence[Message], answer: str, template: Template, tokenizer: Tokenizer) -> Answer:
    """Render a prompt with its answer; targets are the answer's own tokens and its stop token, no earlier turn's."""
    rendered = template.render([*prompt, Message("assistant", answer)], tokenizer)
    start = len(template.prompt(prompt, tokenizer))
    learnt = [
        token if learn and place >= start else IGNORE
        for place, (token, learn) in enumerate(zip(rendered.ids, rendered.learn, strict=True))
    ]
    return Answer(rendered.ids[:-1], tuple(learnt[1:]))


def render_pairs(
    records: Sequence[Preference], template: Template, tokenizer: Tokenizer, context: int, watch: Watch
) -> list[Pair]:
    """Render all pairs; what is longer than ``context`` loses the beginning of its prompt.

    Both answers of a pair keep the same rest of the prompt, at least one token of it. Pairs with an answer that
    does not fit even so are left out. Both are counted in a note.

    Raises:
        UserError: no pair is left.
    """
    pairs, shortened, left_out = [], 0, 0
    for record in records:
        answers = [
            render_answer(record.prompt, text, template, tokenizer) for text in (record.chosen, record.rejected)
        ]
        excess = max(len(answer.ids) for answer in answers) - context
        if excess > 0:
            room = min(next(i for i, token in enumerate(answer.targets) if token != IGNORE) for answer in answers)
            if excess > room:
                left_out += 1
                continue
            shortened += 1
            answers = [Answer(answer.ids[excess:], answer.targets[excess:]) for answer in answers]
        pairs.append(Pair(answers[0], answers[1], record.name))
    if shortened or left_out:
        watch.note(
            f"of {len(records)} preference pairs {shortened} lost the beginning of their prompt and {left_out} were "
            f"left out, because the model's context is {context} tokens"
        )
    if not pairs:
        raise UserError(
            f"none of the {len(records)} preference pairs fits into the model's context of {context} tokens",
            remedy="Use shorter answers, or a model with a longer context.",
            code="no-preference-pairs",
        )
    return pairs


class PairStream:
    """Endless batches of pairs: row 2i is chosen, row 2i + 1 rejected.

    Each epoch is a permutation drawn from (seed, epoch); a batch may span two epochs. The stream of ``rank`` yields
    the batches rank, rank + world, … of these. ``extra["reference_sum"]``
    holds the reference's log-probability of each row's answer. It is computed when a pair first turns up and kept
    by the pair's number; it is part of the state, so that a resumed stream yields the same bits.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        reference: LanguageModel,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pairs = pairs
        self.reference = reference
        self.batch = batch
        self.seed = seed
        self.rank, self.world = rank, world
        self.drawn = 0
        self.known: dict[int, Float[Tensor, " 2"]] = {}
        self._order: tuple[int, list[int]] = (-1, [])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        first = (self.drawn * self.world + self.rank) * self.batch
        numbers = [self._number(first + i) for i in range(self.batch)]
        self.drawn += 1
        batch = collate([self.pairs[number] for number in numbers])
        if any(number not in self.known for number in numbers):
            sums = reference_sums(self.reference, batch).view(-1, 2)
            for number, row in zip(numbers, sums, strict=True):
                self.known.setdefault(number, row)
        batch.extra["reference_sum"] = torch.cat([self.known[number] for number in numbers])
        return batch

    def _number(self, place: int) -> int:
        epoch, index = divmod(place, len(self.pairs))
        if self._order[0] != epoch:
            order = list(range(len(self.pairs)))
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
            self._order = epoch, order
        return self._order[1][index]

    def state_dict(self) -> dict[str, Any]:
        """How many batches were drawn, and the reference's answers so far."""
        state: dict[str, Any] = {"drawn": self.drawn}
        if self.known:
            numbers = sorted(self.known)
            state["numbers"] = torch.tensor(numbers)
            state["reference_sum"] = torch.stack([self.known[number] for number in numbers])
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.drawn = int(state["drawn"])
        numbers = state["numbers"].tolist() if "numbers" in state else []
        self.known = {number: state["reference_sum"][i].clone() for i, number in enumerate(numbers)}


def collate(pairs: Sequence[Pair]) -> Batch:
    """Pairs as one right-padded batch of twice as many rows."""
    rows = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]
    ids, valid = pad_rows([row.ids for row in rows])
    targets, _ = pad_rows([row.targets for row in rows], IGNORE)
    return Batch(ids, targets, valid=valid, names=[pair.name for pair in pairs for _ in range(2)])


@torch.no_grad()
def reference_sums(reference: LanguageModel, batch: Batch) -> Float[Tensor, " rows"]:
    """Log-probability of each row's targets under the frozen reference, on the CPU."""
    there = batch.to(reference.device)
    return reference.logprobs(there.ids, there.targets, valid=there.valid).sum(dim=1).cpu()
