"""Properties of quantizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.errors import UserError
from corelm.kinds.quantizer import Codes, Statistics


class QuantizerBench(Bench):
    """Matrices with difficult groups."""

    kind = "quantizer"
    hints = {"group": (0, 4, 8, 16), "scale_dtype": ("float32",)}

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A weight, whose width is no multiple of the group."""
        return {"weight": weight(draw)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Quantize."""
        return _data(subject.part.quantize(inputs["weight"]))


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


def _data(codes: Codes) -> list[Any]:
    return [codes.codes, codes.scale, codes.zero, codes.groups, codes.bits]


def _quantize(part: PartUnderTest, draw: Draw, w: Tensor | None = None) -> tuple[Any, Tensor, Codes]:
    subject = part.bench.subject(part, draw)
    w = weight(draw) if w is None else w
    if subject.part.refuses(*w.shape):
        draw.reject()
    return subject.part, w, subject.part.quantize(w)


def _steps(part: Any, w: Tensor, codes: Codes) -> Tensor:
    """Step of every weight from the range of its group's data, never from the reported scale."""
    symmetric = getattr(part.config, "symmetric", True)
    step = torch.zeros_like(w)
    for group in codes.groups.unique():
        columns = codes.groups == group
        values = w[:, columns]
        if symmetric:
            size = values.abs().amax(1) / (2 ** (codes.bits - 1) - 1)
        else:
            size = (values.amax(1).clamp(min=0) - values.amin(1).clamp(max=0)) / (2**codes.bits - 1)
        step[:, columns] = size[:, None]
    return step


@property_of(
    "quantizer",
    statement="Without statistics every weight is within half a step, the step taken from the range of its group's data.",
    catches="floor or trunc, a clamped zero point on one-signed groups (llm-awq#193), garbage in a partial last group",
    examples=80,
)
def within_half_a_step(part: PartUnderTest, draw: Draw) -> None:
    """Every element."""
    quantizer, w, codes = _quantize(part, draw)
    error = (codes.dequantize(torch.float64) - w).abs()
    # Steps are kept in float32 or less, which moves the ends of the range by as much per code.
    slack = 2.0**codes.bits * 2**-23
    allowed = _steps(quantizer, w, codes) * (0.5 + slack) + 1e-30
    worst = float((error / allowed).max())
    assert worst <= 1.0, f"an error of {worst / 2:.3f} steps"


@property_of(
    "quantizer",
    statement="Quantizing what was dequantized changes nothing.",
    catches="rounding that isn't idempotent, a range that shrinks",
    examples=40,
)
def idempotent(part: PartUnderTest, draw: Draw) -> None:
    """Project twice."""
    quantizer, _, codes = _quantize(part, draw)
    once = codes.dequantize(torch.float64)
    again = quantizer.quantize(once).dequantize(torch.float64)
    size = once.abs().amax(1, keepdim=True).clamp(min=1e-30)
    close(again / size, once / size, "quantized twice and once", 1e-5)


@property_of(
    "quantizer",
    statement="Codes and zero points are whole numbers in 0 … 2^bits − 1, in the shapes of the contract.",
    catches="a code out of range that wraps in storage",
    tier="bit",
    examples=40,
)
def codes_are_in_range(part: PartUnderTest, draw: Draw) -> None:
    """Range and shape."""
    _, w, codes = _quantize(part, draw)
    top = 2**codes.bits - 1
    for name, values in (("codes", codes.codes), ("zero", codes.zero)):
        assert values.dtype == torch.uint8, f"{name} are {values.dtype}"
        assert int(values.max()) <= top, f"{name} up to {int(values.max())} in {codes.bits} bits"
    groups = codes.scale.shape[1]
    assert codes.codes.shape == w.shape and codes.zero.shape == codes.scale.shape == (w.shape[0], groups), "shapes"
    assert codes.groups.shape == (w.shape[1],) and codes.groups.dtype == torch.int32, "groups"
    assert int(codes.groups.min()) >= 0 and int(codes.groups.max()) < groups, "a group that doesn't exist"
    assert codes.scale.isfinite().all(), "a scale is not finite"


@property_of(
    "quantizer",
    statement="A group of zeros gives zeros, and a zero among others stays exactly zero.",
    catches="0/0, a zero point that is no whole number",
    tier="bit",
    examples=25,
)
def zero_is_exact(part: PartUnderTest, draw: Draw) -> None:
    """Zeros here and there, and a row of them."""
    w = draw.normal(3, 16, scale=draw.scale())
    w[:, ::3] = 0
    w[1] = 0
    _, _, codes = _quantize(part, draw, w)
    back = codes.dequantize(torch.float64)
    assert (back[w == 0] == 0).all(), f"zeros became {back[w == 0].abs().max():.3g}"


@property_of(
    "quantizer",
    statement="Scaling weights by a power of two leaves the codes and scales the result by as much.",
    catches="an absolute floor under the scale",
    tier="bit",
    examples=25,
)
def scale_equivariant(part: PartUnderTest, draw: Draw) -> None:
    """2^k."""
    w = draw.normal(3, 16)
    factor = 2.0 ** draw.choice("k", [-20, 3, -3, 10])
    quantizer, _, codes = _quantize(part, draw, w)
    scaled = quantizer.quantize(w * factor)
    assert torch.equal(scaled.codes, codes.codes), f"weights × {factor} have other codes"
    assert torch.equal(scaled.dequantize(torch.float64), codes.dequantize(torch.float64) * factor), (
        "values don't scale"
    )


@property_of(
    "quantizer",
    statement="On a symmetric grid negated weights give the negated result.",
    catches="−128 without +128, floor",
    tier="bit",
    examples=20,
)
def odd_when_symmetric(part: PartUnderTest, draw: Draw) -> None:
    """Negate."""
    quantizer, w, codes = _quantize(part, draw, draw.normal(3, 16, scale=draw.scale()))
    if not getattr(quantizer.config, "symmetric", False):
        raise NotApplicable("its grid isn't symmetric under this config")
    back = quantizer.quantize(-w).dequantize(torch.float64)
    assert torch.equal(back, -codes.dequantize(torch.float64)), "−w doesn't give minus the result"


@property_of(
    "quantizer",
    statement="Without statistics, larger weights of one group get no smaller values.",
    catches="codes that overflow, signs lost in packing",
    examples=20,
)
def monotone_in_a_group(part: PartUnderTest, draw: Draw) -> None:
    """Sort inside of each group."""
    _, w, codes = _quantize(part, draw)
    back = codes.dequantize(torch.float64)
    for group in codes.groups.unique():
        columns = (codes.groups == group).nonzero().flatten()
        order = w[:, columns].argsort(dim=1)
        ordered = back[:, columns].gather(1, order)
        assert (ordered.diff(dim=1) >= -1e-12 * back.abs().max()).all(), "a larger weight has a smaller value"


@property_of(
    "quantizer",
    statement="Without statistics a group's codes depend on that group, and a row's on that row.",
    catches="a scale that is read from another group (torch-xpu-ops#5001)",
    tier="bit",
    examples=25,
)
def groups_are_local(part: PartUnderTest, draw: Draw) -> None:
    """Change the first group of the first row."""
    w = draw.normal(3, 21)
    quantizer, _, codes = _quantize(part, draw, w)
    changed = w.clone()
    first = codes.groups == codes.groups[0]
    changed[0, first] *= 7.3
    other = quantizer.quantize(changed)
    assert torch.equal(other.codes[1:], codes.codes[1:]), "another row's codes changed"
    assert torch.equal(other.codes[0, ~first], codes.codes[0, ~first]), "another group's codes changed"
    kept = [g for g in range(codes.scale.shape[1]) if g != int(codes.groups[0])]
    assert torch.equal(other.scale[0, kept], codes.scale[0, kept]), "another group's scale changed"


@property_of(
    "quantizer",
    statement="More bits, less error: eight bits have under a fiftieth of the squared error of four.",
    catches="a number of bits that is ignored",
    tier="stat",
    examples=8,
    excuse=lambda part: None if "bits" in part.cls.Config.model_fields else "its number of bits is fixed",
)
def more_bits_help(part: PartUnderTest, draw: Draw) -> None:
    """Mean squared error."""
    w = draw.normal(16, 32)
    errors = []
    for bits in (4, 8):
        quantizer = part.bench.subject(part, draw, bits=bits).part
        errors.append(float((quantizer.quantize(w).dequantize(torch.float64) - w).square().mean()))
    assert errors[1] < errors[0] / 50, f"squared error {errors[0]:.3g} with 4 bits, {errors[1]:.3g} with 8"


@property_of(
    "quantizer",
    statement="NaN and infinity in the weights are refused.",
    catches="a model that is broken in silence",
    tier="io",
    examples=4,
)
def broken_weights_are_refused(part: PartUnderTest, draw: Draw) -> None:
    """One of each."""
    quantizer = part.bench.subject(part, draw).part
    for bad in (torch.nan, torch.inf):
        w = draw.normal(3, 8)
        w[1, 2] = bad
        try:
            quantizer.quantize(w)
        except UserError:
            continue
        raise AssertionError(f"{bad} was quantized")


def statistics(draw: Draw, inputs: int, *, tokens: int = 64) -> Statistics:
    """Of correlated activations."""
    x = draw.normal(tokens, inputs) @ (torch.eye(inputs, dtype=torch.float64) + 0.5 * draw.normal(inputs, inputs))
    return Statistics(hessian=2 * x.T @ x / tokens, tokens=tokens)


@property_of(
    "quantizer",
    statement="With statistics the error on the calibration data is not above that of quantizing without them.",
    catches="an update with the wrong sign or the wrong factor",
    examples=12,
    excuse=lambda part: None if part.cls.calibrated else "it looks at no data",
)
def calibration_helps(part: PartUnderTest, draw: Draw) -> None:
    """Σ Δw H Δwᵀ."""
    subject = part.bench.subject(part, draw)
    w = draw.normal(6, 16)
    seen = statistics(draw, 16)

    def error(codes: Codes) -> float:
        delta = codes.dequantize(torch.float64) - w
        return float((delta @ seen.hessian.double() * delta).sum())

    with_data, without = error(subject.part.quantize(w, seen)), error(subject.part.quantize(w))
    assert with_data <= without * (1 + 1e-6), f"error {with_data:.5g} with the data, {without:.5g} without"


@property_of(
    "quantizer",
    statement="With an identity Hessian the result is that of quantizing without statistics.",
    catches="error feedback where inputs are independent",
    tier="bit",
    examples=10,
    excuse=lambda part: None if part.cls.calibrated else "it looks at no data",
)
def identity_hessian_is_rounding(part: PartUnderTest, draw: Draw) -> None:
    """H = 1."""
    subject = part.bench.subject(part, draw)
    w = draw.normal(4, 16)
    with_identity = subject.part.quantize(w, Statistics(torch.eye(16, dtype=torch.float64), 32))
    a, b = with_identity.dequantize(torch.float64), subject.part.quantize(w).dequantize(torch.float64)
    assert same_bits(a, b), "independent inputs of equal size should be rounded to nearest"
