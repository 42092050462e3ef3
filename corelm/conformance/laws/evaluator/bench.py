"""Evaluators with records to read and a tiny model to measure."""

from __future__ import annotations

from typing import Any

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.conformance.tiny import Silent, tiny
from corelm.kinds.records import Choice, Conversation, Labelled, Message, Preference, Record, Text

TEXTS = (
    "The cat sat.",
    "def f(x):\n    return x",
    "aaa bbb ccc",
    "It is so, isn't it?",
    "one two three four",
    "z y x",
)


class EvaluatorBench(Bench):
    """Six records of the type that the part reads."""

    kind = "evaluator"
    pins = {"data": None, "limit": None, "tokens": None, "answer_tokens": 4, "max_new_tokens": 4, "shots": 0}


def records(reads: str) -> list[Record]:
    """A few records of each type."""
    made: dict[str, Any] = {
        "text": lambda n, t: Text(t, f"text {n}"),
        "conversation": lambda n, t: Conversation((Message("user", t), Message("assistant", "ok")), f"chat {n}"),
        "preference": lambda n, t: Preference((Message("user", t),), "yes", f"no {n}", f"pair {n}"),
        "labelled": lambda n, t: Labelled(t, n % 2, f"label {n}"),
        "choice": lambda n, t: Choice((t,), (" so", " no", f" {n}"), n % 3, f"choice {n}"),
    }
    return [made[reads](n, t) for n, t in enumerate(TEXTS)]


def measure(
    part: PartUnderTest, subject: Subject, model: Any, given: list[Record], judge: Any = None
) -> dict[str, float]:
    """What the part says of the model on these records."""
    more = {"judge": judge} if part.cls.judged else {}
    metrics: dict[str, float] = subject.part.evaluate(model, given, Silent(), **more)
    return metrics


def ready(part: PartUnderTest, draw: Draw, **pins: Any) -> tuple[Subject, Any, list[Record], Any]:
    """The part, a model of the type that it measures, six records, and a judge where it wants one."""
    subject = part.bench.subject(part, draw, **pins)
    seed = draw.seed()
    head = {"reward-model": "scalar", "classifier": "classifier"}.get(part.cls.model_kind, "")
    judge = tiny(seed + 1, head="scalar") if part.cls.judged else None
    return subject, tiny(seed, head=head), records(part.cls.reads(subject.config)), judge
