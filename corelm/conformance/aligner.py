"""Properties of aligners, on tiny models."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.tiny import Silent, template, tiny, weights
from corelm.kinds.aligner import Alignment, AlignmentJob, ModelRole
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.records import Conversation, Message, Preference

ANSWERS = ("yes", "no, never", "a", "it is so", "perhaps", "b c d")


class AlignerBench(Bench):
    """Small rollouts and short answers."""

    kind = "aligner"
    hints = {"rollout": (2, 4), "epochs": (1, 2), "answer_tokens": (4, 6), "beta": (0.1, 1.0, 0.01)}
    pins = {"answer_tokens": 4, "rollout": 2}


def job(part: PartUnderTest, config: Any, draw: Draw, *, apart: bool = True, swap: bool = False) -> AlignmentJob:
    """Four records; the policy differs from the reference unless told otherwise."""
    seed = draw.seed()
    roles = part.cls.roles(config)
    models: dict[ModelRole, Any] = {"policy": tiny(seed)}
    if "reference" in roles:
        models["reference"] = tiny(seed + 7 if apart else seed)
    if "reward" in roles:
        models["reward"] = tiny(seed + 3, head="scalar")
    for role, model in models.items():
        if role != "policy":
            model.requires_grad_(False)
    return AlignmentJob(
        models=models,
        template=template(),
        records=records(part.cls.reads(config), draw, swap=swap),
        batch=2,
        steps=4,
        seed=draw.seed() % 1000,
        watch=Silent(),
    )


def records(reads: str, draw: Draw, *, swap: bool = False) -> Any:
    """Preferences or conversations."""
    found: list[Any] = []
    for number in range(4):
        prompt = (Message("user", f"q{number}"),)
        first, second = (draw.choice("answer", ANSWERS) for _ in range(2))
        if first == second:
            second += "!"
        if reads == "preference":
            chosen, rejected = (second, first) if swap else (first, second)
            found.append(Preference(prompt, chosen, rejected, f"pair {number}"))
        else:
            found.append(Conversation((*prompt, Message("assistant", first)), f"chat {number}"))
    return found


def _prepared(part: PartUnderTest, draw: Draw, **more: Any) -> tuple[Alignment, AlignmentJob, Any]:
    subject: Subject = part.bench.subject(part, draw, **more.pop("pins", {}))
    given = job(part, subject.config, draw, **more)
    return subject.part.prepare(given), given, subject.config


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
    alignment, given, _ = _prepared(part, draw)
    others = {role: model for role, model in given.models.items() if role != "policy"}
    before = {role: weights(model.module) for role, model in others.items()}
    batch = next(alignment.stream)
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
    alignment, _, _ = _prepared(part, draw)
    # The first batch of a rollout can have advantages of exactly zero; some batch must not.
    total = torch.zeros((), dtype=torch.float64)
    for batch in itertools.islice(alignment.stream, 2):
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
    batches = [_plain(batch) for batch in itertools.islice(whole.stream, 4)]
    k = draw.integer("k", 0, 3)
    first = subject.part.prepare(_again(given))
    list(itertools.islice(first.stream, k))
    states = copy.deepcopy([first.stream.state_dict(), {n: m.state_dict() for n, m in first.members.items()}])
    fresh = subject.part.prepare(_again(given))
    fresh.stream.load_state_dict(states[0])
    for name, member in fresh.members.items():
        member.load_state_dict(states[1][name])
    rest = [_plain(batch) for batch in itertools.islice(fresh.stream, 4 - k)]
    assert same_bits(rest, batches[k:]), f"resumed after {k} batches, it goes on otherwise"


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
    alignment, given, _ = _prepared(part, draw)
    tokenizer = given.models["policy"].tokenizer
    found = set()
    for batch in itertools.islice(alignment.stream, 2):
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
    alignment, given, config = _prepared(part, draw, pins=pins)
    batch = next(alignment.stream)
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
    alignment, _, _ = _prepared(part, draw, apart=False, pins={"loss": "sigmoid"})
    batch = next(alignment.stream)
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
