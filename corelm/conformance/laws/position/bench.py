"""How position schemes are built and exercised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.kinds.position import PositionGeometry

FAR = 100_000


class PositionBench(Bench):
    """All hooks are called, whatever they do."""

    kind = "position"
    module = True
    varies = True
    hints = {"size": (None, 32, 50)}

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with sizes of an attention."""
        heads = draw.choice("heads", [2, 4, 8, 6, 3])
        return (PositionGeometry(context.dim, heads, draw.choice("head_dim", [8, 4, 16]), context.context),)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Queries, keys, embeddings, positions that restart, and the lengths of their documents where they matter."""
        geometry = subject.arguments[0]
        most = subject.part.limit or draw.choice("positions below", [50, 3000])
        positions = torch.randint(most, (2, 5), generator=draw.generator())
        inputs = {
            "x": draw.normal(2, 5, geometry.dim),
            "q": draw.normal(2, 5, geometry.heads, geometry.head_dim),
            "k": draw.normal(2, 5, 2, geometry.head_dim),
            "positions": positions,
        }
        if subject.part.constant_up_to is not None:
            more = torch.randint(3 * subject.part.constant_up_to, (2, 5), generator=draw.generator())
            inputs["lengths"] = positions + 1 + more
        return inputs

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Embed, turn, scale and bias (floats with the batch and time in front)."""
        scheme, positions = subject.part, inputs["positions"]
        prepared = scheme.prepare(positions, *([inputs["lengths"]] if "lengths" in inputs else []))
        q, k = scheme.rotate(inputs["q"].transpose(1, 2), inputs["k"].transpose(1, 2), prepared)
        q = scheme.scale_query(q, prepared)
        bias = scheme.scores(positions, torch.zeros_like(positions[:, :1]))
        results = [scheme.embed(inputs["x"], positions), q.transpose(1, 2), k.transpose(1, 2)]
        if bias is not None and inputs["x"].dtype == torch.float64:
            results.append(bias.double().expand(len(positions), -1, -1, -1).transpose(1, 2))
        return results

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """``reference(q, positions, lengths)`` is what the hooks rotation and query make of queries."""
        found = self.call(subject, inputs)
        lengths = inputs.get("lengths")
        turned = subject.part.reference(inputs["q"].transpose(1, 2), inputs["positions"], lengths)
        found[1] = turned.transpose(1, 2)
        if "query" not in subject.part.hooks:
            found[2] = subject.part.reference(inputs["k"].transpose(1, 2), inputs["positions"], lengths).transpose(
                1, 2
            )
        return found


class _OfLength:
    """A scheme all whose documents have one length."""

    def __init__(self, scheme: Any, length: int) -> None:
        self._scheme, self._length = scheme, length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheme, name)

    def prepare(self, positions: Tensor) -> Any:
        """As that scheme does."""
        return self._scheme.prepare(positions, torch.full_like(positions, self._length))


def ready(part: PartUnderTest, draw: Draw) -> tuple[Any, PositionGeometry]:
    """A scheme and what it was built for; in documents of a drawn length where it looks at that."""
    subject = part.bench.subject(part, draw)
    scheme = subject.part
    if scheme.constant_up_to is not None:
        scheme = _OfLength(scheme, scheme.constant_up_to * draw.choice("times the constant length", [1, 2, 7]))
    return scheme, subject.arguments[0]


def hook(name: str) -> Callable[[PartUnderTest], str | None]:
    """An excuse for schemes without this hook."""

    def excuse(part: PartUnderTest) -> str | None:
        return None if name in part.cls.hooks else f"it has no hook {name!r}"

    return excuse


def turned(scheme: Any, x: Tensor, positions: Tensor, *, keys: bool = False) -> Tensor:
    """``x`` (batch, heads, time, head_dim) turned as queries or as keys."""
    q, k = scheme.rotate(x, x, scheme.prepare(positions))
    result: Tensor = k if keys else q
    return result


def span(scheme: Any, wanted: int) -> int:
    """The largest position to try."""
    return min(wanted, scheme.limit - 1) if scheme.limit is not None else wanted
