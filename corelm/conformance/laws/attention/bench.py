"""How attention is built and exercised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest
from corelm.conformance.harness import Turning, layer_step
from corelm.kinds.component import ComponentConfig
from corelm.kinds.position import Position


class AttentionBench(Bench):
    """Attention is given a step of its own; documents, padding and state are drawn where a property needs them."""

    kind = "attention"
    module = True
    # Norms over heads of one feature would leave nothing of it but the sign.
    hints = {"heads": (2, 1, 4), "kv_heads": (None, 1, 2), "head_dim": (None, 4, 2, 8)}

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the layer's context."""
        return (context,)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A few short rows."""
        return {"x": draw.normal(2, draw.choice("time", [4, 1, 7]), subject.context.dim)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Mix, causally."""
        return self.program(subject, inputs)()

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """``reference(x, step)``, without a state."""
        return subject.part.reference(inputs["x"], layer_step(*inputs["x"].shape[:2]))

    def program(self, subject: Subject, inputs: dict[str, Any]) -> Callable[[], Any]:
        """With the step made beforehand."""
        x = inputs["x"]
        step = layer_step(x.shape[0], x.shape[1], device=x.device)
        return lambda: subject.part(x, step)


def ready(part: PartUnderTest, draw: Draw, *, sharp: bool = True) -> tuple[Any, int, list[Position]]:
    """A part, its width, and perhaps a rotation; half of the time with weights so large that softmax is sharp."""
    subject = part.bench.subject(part, draw)
    attention = subject.part
    if sharp and draw.choice("weights", ["usual", "×17"]) == "×17":
        with torch.no_grad():
            for name, parameter in attention.named_parameters():
                if parameter.dim() == 2 and not name.startswith("output"):
                    parameter.mul_(17)
    schemes: list[Position] = []
    if "rotation" in part.cls.offers(subject.config) and attention.geometry and draw.choice("turning", [False, True]):
        schemes = [Turning(ComponentConfig(), attention.geometry)]
    return attention, subject.context.dim, schemes


def needs(part: PartUnderTest, attention: Any, capability: str) -> None:
    """Say nothing about parts that don't offer a capability."""
    if capability not in part.cls.offers(attention.config):
        raise NotApplicable(f"it doesn't offer {capability!r}")


def lacks(part: PartUnderTest, attention: Any, capability: str) -> None:
    """Say nothing about parts that offer a capability."""
    if capability in part.cls.offers(attention.config):
        raise NotApplicable(f"it offers {capability!r}")


def weighs(part: PartUnderTest, attention: Any) -> None:
    """Say nothing about parts whose output is no weighted mean."""
    if "recurrent" in part.cls.offers(attention.config):
        raise NotApplicable("a recurrent mixer is no weighted mean of its inputs")
