"""How aligners are exercised: tiny models, a few records, short answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.tiny import Silent, template, tiny
from corelm.kinds.aligner import Alignment, AlignmentJob, ModelRole
from corelm.kinds.batch import Batch
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


def prepared(part: PartUnderTest, draw: Draw, **more: Any) -> tuple[Alignment, AlignmentJob, Any]:
    """An alignment, the job that it is for, and the drawn config; ``pins`` holds options."""
    subject: Subject = part.bench.subject(part, draw, **more.pop("pins", {}))
    given = job(part, subject.config, draw, **more)
    return subject.part.prepare(given), given, subject.config


def sums(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each row's targets together, ``(batch,)``."""
    with torch.no_grad():
        found: Tensor = model.logprobs(batch.ids, batch.targets, valid=batch.valid).sum(1)
    return found


def chosen_rows(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch, in this order; what ``extra`` holds of each row goes with it."""
    return Batch(
        batch.ids[rows],
        batch.targets[rows],
        valid=None if batch.valid is None else batch.valid[rows],
        extra={name: value[rows] if len(value) == len(batch.ids) else value for name, value in batch.extra.items()},
    )
