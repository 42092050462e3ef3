"""Properties of aligners, on tiny models."""

from __future__ import annotations

import copy
import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from corelm.conformance import policy_gradient
from corelm.conformance.aligner_bench import job, prepared
from corelm.conformance.bench import close, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.tiny import Silent, weights
from corelm.kinds.aligner import AlignmentJob
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.trainer import Processes

__all__ = ["Threads", "policy_gradient"]

Made = TypeVar("Made")


def _offline(part: PartUnderTest) -> str | None:
    config = part.cls.Config()
    return None if part.cls.reads(config) == "preference" else "it makes its own experience"


@property_of(
    "aligner",
    statement="The reference and the reward model get no gradient and keep their bits and their mode.",
    catches="a reference that is trained along",
    tier="bit",
    examples=3,
)
def others_stay_frozen(part: PartUnderTest, draw: Draw) -> None:
    """One step of descent on what the aligner gives."""
    alignment, given, _ = prepared(part, draw)
    others = {role: model for role, model in given.models.items() if role != "policy"}
    before = {role: weights(model.module) for role, model in others.items()}
    batch = next(alignment.streams(Processes()))
    alignment.objective.evaluate(alignment.trained, batch).total.backward()
    with torch.no_grad():
        for parameter in alignment.trained.module.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    for role, model in others.items():
        assert all(p.grad is None for p in model.module.parameters()), f"the {role} has a gradient"
        assert same_bits(before[role], weights(model.module)), f"the {role} changed"
        assert not model.module.training, f"the {role} is in training mode"


@property_of(
    "aligner",
    statement="The policy receives a finite gradient, and has a finite loss and detached figures.",
    catches="a detached policy",
    examples=3,
)
def policy_learns(part: PartUnderTest, draw: Draw) -> None:
    """A backward pass."""
    alignment, _, _ = prepared(part, draw)
    # The first batch of a rollout can have advantages of exactly zero; some batch must not.
    total = torch.zeros((), dtype=torch.float64)
    for batch in itertools.islice(alignment.streams(Processes()), 2):
        terms = alignment.objective.evaluate(alignment.trained, batch)
        assert terms.total.isfinite(), f"the loss is {float(terms.total)}"
        assert all(not figure.requires_grad for figure in terms.sums.values()), "a figure has a graph"
        total = total + terms.total
    total.backward()
    gradients = [p.grad for p in alignment.policy.module.parameters() if p.grad is not None]
    assert any(float(g.abs().sum()) > 0 for g in gradients), "the policy has no gradient"
    assert all(g.isfinite().all() for g in gradients), "a gradient is not finite"


@property_of(
    "aligner",
    statement="The stream's state after k batches, loaded into a fresh one, goes on with batch k.",
    catches="experience that is generated anew, an order that is lost",
    tier="bit",
    examples=3,
)
def experience_resumes(part: PartUnderTest, draw: Draw) -> None:
    """Models unchanged in between; members travel too."""
    subject = part.bench.subject(part, draw)
    given = job(part, subject.config, draw)
    whole = subject.part.prepare(_again(given))
    batches = [_plain(batch) for batch in itertools.islice(whole.streams(Processes()), 4)]
    k = draw.integer("k", 0, 3)
    first = subject.part.prepare(_again(given))
    drawn = first.streams(Processes())
    list(itertools.islice(drawn, k))
    states = copy.deepcopy([drawn.state_dict(), {n: m.state_dict() for n, m in first.members.items()}])
    fresh = subject.part.prepare(_again(given))
    stream = fresh.streams(Processes())
    stream.load_state_dict(states[0])
    for name, member in fresh.members.items():
        member.load_state_dict(states[1][name])
    rest = [_plain(batch) for batch in itertools.islice(stream, 4 - k)]
    assert same_bits(rest, batches[k:]), f"resumed after {k} batches, it goes on otherwise"


class Threads:
    """As many processes as threads, which gather what each of them has."""

    def __init__(self, world: int) -> None:
        self.barrier, self.given = threading.Barrier(world, timeout=60), [None] * world

    def run(self, work: Callable[[Processes], Made]) -> list[Made]:
        """What ``work`` makes in each of them, by rank."""

        def one(rank: int) -> Made:
            try:
                return work(_Thread(self, rank))
            except BaseException:
                self.barrier.abort()  # else the others would wait for this one
                raise

        with ThreadPoolExecutor(len(self.given)) as pool:
            return list(pool.map(one, range(len(self.given))))


class _Thread(Processes):
    def __init__(self, together: Threads, rank: int) -> None:
        self.together, self.rank, self.world = together, rank, len(together.given)

    def gather(self, value: Any) -> list[Any]:
        self.together.given[self.rank] = value
        self.together.barrier.wait()
        gathered = copy.deepcopy(self.together.given)
        self.together.barrier.wait()
        return gathered


@property_of(
    "aligner",
    statement="The streams of n processes are those of one: process r has its micro-batches r, r + n, and so on.",
    catches="every process learning from the same batches, processes that wait for each other forever",
    examples=3,
)
def processes_share_the_work(part: PartUnderTest, draw: Draw) -> None:
    """Processes are threads, each with models of its own; four micro-batches in all."""
    subject = part.bench.subject(part, draw)
    given = job(part, subject.config, draw)
    world = draw.choice("processes", [2, 4])
    alone = subject.part.prepare(_again(given)).streams(Processes())
    wanted = [_plain(batch) for batch in itertools.islice(alone, 4)]

    def work(processes: Processes) -> list[Any]:
        stream = subject.part.prepare(_again(given)).streams(processes)
        return [_plain(batch) for batch in itertools.islice(stream, 4 // world)]

    found = Threads(world).run(work)
    for number, batch in enumerate(wanted):
        for mine, of_one in zip(_tensors(found[number % world][number // world]), _tensors(batch), strict=True):
            close(mine, of_one, f"micro-batch {number} among {world} processes, and alone")


def _tensors(batch: list[Any]) -> list[Tensor]:
    *main, extra = batch
    return [tensor for tensor in [*main, *extra.values()] if tensor is not None]


def _again(given: AlignmentJob) -> AlignmentJob:
    """The same job with copies of the models, which an aligner may extend."""
    return AlignmentJob(
        {role: copy.deepcopy(model) for role, model in given.models.items()},
        given.template,
        given.records,
        given.batch,
        given.steps,
        given.seed,
        Silent(),
    )


def _plain(batch: Batch) -> list[Any]:
    return [batch.ids, batch.targets, batch.valid, dict(sorted(batch.extra.items()))]


@property_of(
    "aligner",
    statement="Learnt are the answer's tokens and its stop token, and nothing else.",
    catches="prompts in the loss (OpenRLHF#465), padding (trl#1625), a shift by one",
    tier="bit",
    examples=5,
    excuse=_offline,
)
def answers_are_learnt(part: PartUnderTest, draw: Draw) -> None:
    """Read the targets back."""
    alignment, given, _ = prepared(part, draw)
    tokenizer = given.models["policy"].tokenizer
    found = set()
    for batch in itertools.islice(alignment.streams(Processes()), 2):
        for row in range(len(batch.ids)):
            learnt = [int(t) for t in batch.targets[row] if t != IGNORE]
            found.add(tokenizer.decode(learnt))
            for t, target in enumerate(batch.targets[row, :-1].tolist()):
                if batch.valid is not None and not bool(batch.valid[row, t + 1]):
                    break  # the last target of a row need not be an input
                assert target in (IGNORE, int(batch.ids[row, t + 1])), f"row {row}: a target is not the next token"
    stop = tokenizer.decode(given.template.stop(tokenizer)[:1])
    wanted = {answer + stop for r in given.records for answer in (r.chosen, r.rejected)}  # type: ignore[union-attr]
    assert found == wanted, f"learnt are {sorted(found)}, the answers are {sorted(wanted)}"


def _sums(model: Any, batch: Batch) -> Tensor:
    with torch.no_grad():
        sums: Tensor = model.logprobs(batch.ids, batch.targets, valid=batch.valid).sum(1)
    return sums


def _not_dpo(part: PartUnderTest) -> str | None:
    return None if getattr(part.cls, "law", part.name) == "dpo" else "it is not direct preference optimisation"


@property_of(
    "aligner",
    statement="Chosen and rejected swapped change the Bradley–Terry loss by ℓ(c, r) − ℓ(r, c) = −z.",
    catches="a sign, a missing reference, a clamp",
    examples=5,
    excuse=_not_dpo,
)
def antisymmetric(part: PartUnderTest, draw: Draw) -> None:
    """z from the models themselves; smoothing shrinks the difference by 1 − 2ε."""
    pins = {"loss": "sigmoid", "beta": draw.choice("beta", [0.1, 1.0])}
    alignment, given, config = prepared(part, draw, pins=pins)
    batch = next(alignment.streams(Processes()))
    policy, reference = _sums(given.models["policy"], batch), _sums(given.models["reference"], batch)
    margin = (policy - reference)[0::2] - (policy - reference)[1::2]
    pairs = torch.arange(len(batch.ids)).view(-1, 2).flip(1).flatten()
    swapped = Batch(
        batch.ids[pairs],
        batch.targets[pairs],
        valid=None if batch.valid is None else batch.valid[pairs],
        extra={name: value[pairs] if len(value) == len(pairs) else value for name, value in batch.extra.items()},
    )
    with torch.no_grad():
        found = alignment.objective.evaluate(alignment.trained, batch).total
        found = found - alignment.objective.evaluate(alignment.trained, swapped).total
    smoothing = getattr(config, "label_smoothing", 0.0)
    close(found, -config.beta * margin.sum() * (1 - 2 * smoothing), "ℓ(c, r) − ℓ(r, c), and −z", 1e-4)


@property_of(
    "aligner",
    statement="With the policy equal to the reference every pair's loss is ln 2, whatever beta and smoothing.",
    catches="beta outside of the log-sigmoid, a reference that isn't subtracted",
    examples=5,
    excuse=_not_dpo,
)
def ln_two_at_the_reference(part: PartUnderTest, draw: Draw) -> None:
    """At the start of training."""
    alignment, _, _ = prepared(part, draw, apart=False, pins={"loss": "sigmoid"})
    batch = next(alignment.streams(Processes()))
    terms = alignment.objective.evaluate(alignment.trained, batch)
    loss = float(terms.total.detach()) / alignment.objective.count(batch)
    assert abs(loss - math.log(2)) < 1e-5, f"loss {loss:.6f} per pair, ln 2 is {math.log(2):.6f}"


@property_of(
    "aligner",
    statement="What is read and which models are needed is said beforehand.",
    catches="a role that is asked for when it is too late",
    tier="io",
    examples=4,
)
def needs_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Roles and records."""
    config = part.bench.subject(part, draw).config
    roles = part.cls.roles(config)
    assert isinstance(roles, frozenset) and "policy" in roles, f"roles {roles!r}: somebody must be trained"
    assert roles <= {"policy", "reference", "reward"}, f"roles {sorted(roles)}"
    assert part.cls.reads(config) in ("preference", "conversation"), f"reads {part.cls.reads(config)!r}"
