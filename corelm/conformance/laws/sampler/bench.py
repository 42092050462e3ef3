"""How samplers are exercised: a few rows of logits, without ties unless they are asked for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest

VOCAB = 12


class SamplerBench(Bench):
    """A few rows of logits without ties."""

    kind = "sampler"

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Logits from flat to peaked, and the tokens so far."""
        scale = draw.choice("logits ×", [1.0, 0.1, 8.0])
        return {"logits": draw.normal(3, VOCAB, scale=scale), "ids": draw.ids(3, 5, VOCAB)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Filter."""
        return subject.part(inputs["logits"], inputs["ids"])


def filtered(part: PartUnderTest, draw: Draw, **pins: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A sampler, logits, tokens so far, and what it makes of them."""
    subject = part.bench.subject(part, draw, **pins)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["logits"], inputs["ids"], part.bench.call(subject, inputs)


def option(part: PartUnderTest, *names: str) -> str:
    """The one option of these names that the part has."""
    found = [name for name in names if name in part.cls.Config.model_fields]
    if not found:
        raise NotApplicable(f"it has no option {' or '.join(names)}")
    return found[0]


def named(*names: str) -> Any:
    """Says nothing about parts whose name (or declared ``law``) is not one of these."""

    def excuse(part: PartUnderTest) -> str | None:
        law = getattr(part.cls, "law", part.name)
        return None if law in names else f"it is {law!r}, not {' or '.join(names)}"

    return excuse
