"""How quantizers are exercised: matrices with difficult groups, and statistics of activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest
from corelm.kinds.quantizer import Codes, Statistics


class QuantizerBench(Bench):
    """Matrices with difficult groups."""

    kind = "quantizer"
    observed = True
    hints = {"group": (0, 4, 8, 16), "scale_dtype": ("float32", "float32", "bfloat16")}

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A weight, whose width is no multiple of the group; and statistics for those that look at data."""
        drawn = weight(draw)
        calibrated = type(subject.part).calibrated and draw.choice("calibrated", [True, False])
        return {"weight": drawn, "statistics": statistics(draw, drawn.shape[1]) if calibrated else None}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Quantize."""
        return data_of(subject.part.quantize(*inputs.values()))

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """``reference(weight, statistics)`` are codes."""
        return data_of(subject.part.reference(*inputs.values()))


def weight(draw: Draw) -> Tensor:
    """Rows of different kinds: usual, one-signed, zero, constant, with one outlier."""
    inputs = draw.choice("inputs", [16, 5, 40, 1, 24])
    rows = []
    for _ in range(draw.integer("outputs", 1, 4)):
        row = draw.normal(inputs, scale=draw.choice("size", [1.0, 1e-3, 30.0]))
        sort = draw.choice("row", ["usual", "positive", "negative", "zero", "constant", "outlier"])
        if sort == "positive":
            row = row.abs() + 3 * float(row.abs().max())
        elif sort == "negative":
            row = -row.abs() - 3 * float(row.abs().max())
        elif sort == "zero":
            row = torch.zeros_like(row)
        elif sort == "constant":
            row = torch.full_like(row, float(row[0]))
        elif sort == "outlier":
            row[draw.integer("place", 0, inputs - 1)] *= 1e4
        rows.append(row)
    return torch.stack(rows)


def data_of(codes: Codes) -> list[Any]:
    """What codes are, as plain leaves."""
    return [codes.codes, codes.scale, codes.zero, codes.groups, codes.bits]


def quantized(part: PartUnderTest, draw: Draw, w: Tensor | None = None, **pins: Any) -> tuple[Any, Tensor, Codes]:
    """A quantizer, a weight that it takes, and the weight's codes."""
    subject = part.bench.subject(part, draw, **pins)
    w = weight(draw) if w is None else w
    if subject.part.refuses(*w.shape):
        draw.reject()
    return subject.part, w, subject.part.quantize(w)


def statistics(draw: Draw, inputs: int, *, tokens: int = 64) -> Statistics:
    """Of correlated activations, sometimes with an input that is always zero."""
    x = draw.normal(tokens, inputs) @ (torch.eye(inputs, dtype=torch.float64) + 0.5 * draw.normal(inputs, inputs))
    if inputs > 1 and draw.choice("a dead input", [False, True]):
        x[:, draw.integer("place", 0, inputs - 1)] = 0
    return Statistics(hessian=2 * x.T @ x / tokens, tokens=tokens)
