"""Properties of aligners that look at their rows: what fits, what is learnt, what is scored."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Subject
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.aligner.bench import job
from corelm.conformance.tiny import Silent, template, tiny
from corelm.kinds.aligner import AlignmentJob
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.records import Conversation, Message, Preference
from corelm.kinds.template import Rendered
from corelm.kinds.trainer import Processes

SHORT = 34
"""Tokens that the reference has room for, and the policy for nearly twice as many."""


@property_of(
    "aligner",
    statement="No row is longer than any of the models has room for, none is wider than its batch needs, and what was cut or "
    "left out is told by its number.",
    formula="columns ≤ min context, ∃ row: its last column is no padding; notes ∋ n > 0",
    catches="positions beyond those that the reference was trained on, pairs that disappear",
    tier="bit",
    examples=3,
)
def rows_fit_every_model(part: PartUnderTest, draw: Draw) -> None:
    """A reference of a shorter context, one prompt and one answer that are too long for it."""
    subject = part.bench.subject(part, draw, rollout=4)
    given, watch = job(part, subject.config, draw), Silent()
    long = (Message("user", "why? " * 6),)
    more: Any = (
        [
            Preference(long, "yes", "no", "long prompt"),
            Preference((Message("user", "q"),), "a" * 40, "b", "long answer"),
        ]
        if part.cls.reads(subject.config) == "preference"
        else [Conversation((*long, Message("assistant", "yes")), "long prompt")]
    )
    models = {**given.models, "reference": tiny(draw.seed(), context=SHORT).requires_grad_(False)}
    given = replace(given, models=models, records=[*given.records, *more], watch=watch)
    stream = subject.part.prepare(given).streams(Processes())
    for batch in itertools.islice(stream, 6):
        rows, width = batch.ids.shape
        assert width <= SHORT, f"a row of {width} tokens, the reference has room for {SHORT}"
        assert batch.valid is None or bool(batch.valid[:, -1].any()), (
            f"the last of {width} columns is padding in all rows"
        )
        assert rows == len(batch.targets), f"{rows} rows, and targets of {len(batch.targets)}"
    numbers = [int(number) for note in watch.notes for number in re.findall(r"-?\d+", note)]
    assert any(number > 0 for number in numbers), f"nothing is told of what didn't fit; notes are {watch.notes}"
    assert all(number >= 0 for number in numbers), f"what didn't fit is counted below zero: {watch.notes}"


def _rows(part: PartUnderTest, subject: Subject, given: AlignmentJob, reference: Any) -> tuple[set[Any], set[str]]:
    """Rows of a job, inputs and targets, and what was told of it; models are copied, as an aligner may extend them."""
    watch, rows = Silent(), set()
    models: Any = {role: copy.deepcopy(model) for role, model in given.models.items()} | {"reference": reference}
    made = subject.rebuild().prepare(replace(given, models=models, watch=watch))
    for batch in itertools.islice(made.streams(Processes()), 8):
        valid = torch.ones_like(batch.ids, dtype=torch.bool) if batch.valid is None else batch.valid
        for ids, targets, real in zip(batch.ids, batch.targets, valid, strict=True):
            rows.add((tuple(ids[real].tolist()), tuple(targets[real].tolist())))
    return rows, set(watch.notes)


@property_of(
    "aligner",
    statement="What has no room loses the beginning of its prompt, and that is told; what has just room is as it was, and "
    "nothing is told.",
    formula="rows(room) ≠ rows ⇔ a note says so; offline: the answers learnt are the same",
    catches="a prompt that just fits counted among those that don't, a pair given up for a long prompt",
    tier="bit",
    examples=1,
)
def what_is_cut_is_told(part: PartUnderTest, draw: Draw) -> None:
    """References with a token more and less room than the longest record takes."""
    subject = part.bench.subject(part, draw, rollout=4, epochs=1)
    given, seed = job(part, subject.config, draw), draw.seed()
    prompt, offline = (Message("user", "why? " * 4),), part.cls.reads(subject.config) == "preference"
    long: Any = Preference(prompt, "yes", "no", "long") if offline else Conversation(prompt, "long")
    given = replace(given, records=[*given.records, long])
    written, tokenizer = given.template, given.models["policy"].tokenizer
    most = (
        len(written.render([*prompt, Message("assistant", "yes")], tokenizer).ids)
        if offline
        else len(written.prompt(prompt, tokenizer)) + getattr(subject.config, "answer_tokens", 0)
    )
    whole, usual = _rows(part, subject, given, tiny(seed).requires_grad_(False))
    for room in range(most - 3, most + 3):
        rows, told = _rows(part, subject, given, tiny(seed, context=room).requires_grad_(False))
        if rows == whole:
            assert not told - usual, f"room for {room} tokens cuts nothing, and it says {min(told - usual)!r}"
            continue
        assert told - usual, f"with room for {room} tokens rows are others, and nothing is told"
        learnt, wanted = ({tuple(t for t in targets if t != IGNORE) for _, targets in some} for some in (rows, whole))
        assert not offline or learnt == wanted, f"room for {room} tokens: {len(wanted - learnt)} answers are given up"


@property_of(
    "aligner",
    statement="A policy answers when its answers are needed, as it is then: no rollout is gathered ahead of its turn.",
    formula="after k micro-batches: prompts answered ≤ rollout · ⌈k / (epochs · ⌈rollout/batch⌉)⌉",
    catches="all rollouts gathered at the start, by a policy that hasn't learnt anything",
    tier="bit",
    examples=2,
    excuse=lambda part: "nobody answers anything" if part.cls.reads(part.cls.Config()) == "preference" else None,
)
def answers_when_it_is_needed(part: PartUnderTest, draw: Draw) -> None:
    """Prompts are counted as they are answered."""
    subject = part.bench.subject(part, draw, rollout=4, epochs=draw.choice("epochs", [2, 1]))
    given = job(part, subject.config, draw)
    policy: Any = given.models["policy"]
    answers, asked = policy.generate_ids, []

    def counted(ids: Tensor, **options: Any) -> Tensor:
        asked.append(len(ids))
        found: Tensor = answers(ids, **options)
        return found

    policy.generate_ids = counted
    rollout, epochs = (
        getattr(subject.config, name, usual) for name, usual in (("rollout", given.batch), ("epochs", 1))
    )
    turns = epochs * -(-rollout // given.batch)
    stream = subject.part.prepare(given).streams(Processes())
    for drawn in range(1, 4):
        next(stream)
        most = rollout * -(-drawn // turns)
        assert sum(asked) <= most, f"for {drawn} micro-batches {sum(asked)} prompts were answered, {most} are enough"


class _Trailing:
    """A template that goes on with a line break after an answer's stop token."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def render(self, messages: Any, tokenizer: Any) -> Rendered:
        """With a line break behind each turn."""
        ids: list[int] = []
        learn: list[bool] = []
        for message in messages:
            turn = self._inner.render([message], tokenizer)
            ids, learn = [*ids, *turn.ids, *tokenizer.encode("\n")], [*learn, *turn.learn, False]
        return Rendered(tuple(ids), tuple(learn))

    def prompt(self, messages: Any, tokenizer: Any) -> tuple[int, ...]:
        """Up to the answer."""
        return (*self.render(messages, tokenizer).ids, *self._inner.prompt([], tokenizer))


class _Scripted:
    """Answers that are known: one that ends by itself, with something after its end, and one that doesn't."""

    def __init__(self, policy: Any, stop: int) -> None:
        a, b, c, d = policy.tokenizer.encode("abcd")
        self.rows = ((a, b, stop, c), (a, b, c, d))
        self.learnt = ((a, b, stop), (a, b, c, d))
        self._next: Iterator[tuple[int, ...]] = itertools.cycle(self.rows)
        policy.generate_ids = self

    def __call__(self, ids: Tensor, **options: Any) -> Tensor:
        """One row for each prompt."""
        return torch.tensor([next(self._next) for _ in range(len(ids))])


def _not_proximal(part: PartUnderTest) -> str | None:
    return None if getattr(part.cls, "law", part.name) == "ppo" else "it is not proximal policy optimisation"


@property_of(
    "aligner",
    statement="Learnt is the answer up to and with its stop token; scored is the conversation as the template writes it, and "
    "an answer without end pays for that.",
    formula="targets = y₁ … stop; scored = render(prompt, y); A = score − penalty · [no stop], γ = λ = 1, kl = V = 0",
    catches="an answer's first token that is lost, tokens behind its end, a penalty that is a reward, a turn that is cut "
    "off before its line break",
    tolerance="rewards may be kept in float32",
    examples=4,
    excuse=_not_proximal,
)
def answers_are_scored_as_given(part: PartUnderTest, draw: Draw) -> None:
    """Answers from a script; a reward model that remembers what it was shown."""
    quiet: dict[str, Any] = {
        "value_weight": 0.0,
        "kl_target": None,
        "kl": 0.0,
        "gamma": 1.0,
        "lam": 1.0,
        "whiten": False,
    }
    penalty = draw.choice("penalty", [0.5, 0.0, 2.0])
    head = {"value": {"use": "scalar", "bias": True}}
    subject = part.bench.subject(part, draw, **head, **quiet, missing_stop_penalty=penalty)
    penalty = getattr(subject.config, "missing_stop_penalty", 0.0)
    given = job(part, subject.config, draw)
    written: Any = _Trailing(template())
    policy: Any = given.models["policy"]
    reward: Any = given.models["reward"]
    script = _Scripted(policy, template().stop(policy.tokenizer)[0])
    shown: list[tuple[int, ...]] = []

    def scores(ids: Tensor, valid: Tensor) -> Tensor:
        shown.extend(tuple(row[: int(real.sum())].tolist()) for row, real in zip(ids, valid, strict=True))
        return torch.full((len(ids), 1), 1.5, dtype=torch.float64)

    reward.scores = scores
    alignment = subject.part.prepare(replace(given, template=written))
    own = {id(parameter) for parameter in policy.module.parameters()}
    with torch.no_grad():
        for parameter in alignment.trained.module.parameters():
            if id(parameter) not in own:
                parameter.zero_()
    batch = next(alignment.streams(Processes()))
    found = {tuple(t for t in row if t != IGNORE): number for number, row in enumerate(batch.targets.tolist())}
    assert set(found) == set(script.learnt), f"learnt are {sorted(found)}, the answers are {sorted(script.learnt)}"
    prompts = [written.prompt(record.prompt, policy.tokenizer) for record in given.records]
    tail = written.render([Message("user", "")], policy.tokenizer).ids[-1:]
    wanted = {(*p, *y, *(tail if y == script.learnt[0] else ())) for p in prompts for y in script.learnt}
    assert set(shown) <= wanted, f"shown to the reward model was {sorted(set(shown) - wanted)[0]}"
    for answer, row in found.items():
        advantage = -float(_of_row(alignment, batch, row)) / len(answer)
        expected = 1.5 - penalty * (answer == script.learnt[1])
        assert abs(advantage - expected) < 1e-6, (
            f"the advantage is {advantage:.4f}, the score less the penalty {expected}"
        )


def _of_row(alignment: Any, batch: Batch, row: int) -> Tensor:
    """The loss of one row."""
    targets = torch.full_like(batch.targets, IGNORE)
    targets[row] = batch.targets[row]
    alone = Batch(batch.ids, targets, valid=batch.valid, extra=batch.extra)
    with torch.no_grad():
        total: Tensor = alignment.objective.evaluate(alignment.trained, alone).total
    return total
