"""Properties of quantizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import close, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.quantizer import model
from corelm.conformance.laws.quantizer.bench import quantized, statistics
from corelm.errors import UserError
from corelm.kinds.quantizer import Codes, Statistics

MINIMUM = 8
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["model"]


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


def _grain(codes: Codes) -> float:
    """How far apart, beside their size, steps are in the type that they are kept in; nothing for float32 and better."""
    if codes.scale.element_size() > 2:
        return 0.0
    above = (codes.scale.view(torch.int16) + 1).view(codes.scale.dtype)
    return float((above.double() / codes.scale.double() - 1).max())


@property_of(
    "quantizer",
    statement="Without statistics every weight is within half a step, the step taken from the range of its group's data.",
    formula="|w − ŵ| ≤ ½ Δ_g, Δ_g from the range of the data",
    catches="floor or trunc, a clamped zero point on one-signed groups (llm-awq#193), garbage in a partial last group",
    seen="llm-awq#193, unsloth#10841, bitsandbytes#1884",
    tolerance="Half a step, and what float32 steps move the ends of a range by: 2^bits · 2⁻²³ of one.",
    examples=80,
)
def within_half_a_step(part: PartUnderTest, draw: Draw) -> None:
    """Every element."""
    quantizer, w, codes = quantized(part, draw)
    error = (codes.dequantize(torch.float64) - w).abs()
    # Steps are kept in float32, which moves the ends of the range by as much per code, or rounded up to less.
    slack = 2.0**codes.bits * 2**-23
    allowed = _steps(quantizer, w, codes) * (0.5 * (1 + _grain(codes)) + slack) + 1e-30
    worst = float((error / allowed).max())
    assert worst <= 1.0, f"an error of {worst / 2:.3f} steps"


@property_of(
    "quantizer",
    statement="Quantizing what was dequantized changes nothing.",
    formula="Q(Q(w)) = Q(w)",
    catches="rounding that isn't idempotent, a range that shrinks",
    tolerance="The range of what was rounded gives the step back up to rounding in float32.",
    examples=40,
)
def idempotent(part: PartUnderTest, draw: Draw) -> None:
    """Project twice."""
    quantizer, _, codes = quantized(part, draw, scale_dtype="float32")  # shorter steps may cost the grid an end
    once = codes.dequantize(torch.float64)
    again = quantizer.quantize(once).dequantize(torch.float64)
    size = once.abs().amax(1, keepdim=True).clamp(min=1e-30)
    close(again / size, once / size, "quantized twice and once", 1e-5)


@property_of(
    "quantizer",
    statement="Codes and zero points are whole numbers in 0 … 2^bits − 1, in the shapes of the contract.",
    formula="0 ≤ code, zero ≤ 2^bits − 1",
    catches="a code out of range that wraps in storage",
    seen="nntrainer#4164",
    tier="bit",
    examples=40,
)
def codes_are_in_range(part: PartUnderTest, draw: Draw) -> None:
    """Range and shape."""
    _, w, codes = quantized(part, draw)
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
    formula="w_i = 0 ⇒ ŵ_i = 0",
    catches="0/0, a zero point that is no whole number",
    tier="bit",
    examples=25,
)
def zero_is_exact(part: PartUnderTest, draw: Draw) -> None:
    """Zeros here and there, and a row of them."""
    w = draw.normal(3, 16, scale=draw.scale())
    w[:, ::3] = 0
    w[1] = 0
    _, _, codes = quantized(part, draw, w)
    back = codes.dequantize(torch.float64)
    assert (back[w == 0] == 0).all(), f"zeros became {back[w == 0].abs().max():.3g}"


@property_of(
    "quantizer",
    statement="Scaling weights by a power of two leaves the codes and scales the result by as much.",
    formula="codes(2^k w) = codes(w), ŵ(2^k w) = 2^k ŵ(w)",
    catches="an absolute floor under the scale",
    tier="bit",
    examples=25,
)
def scale_equivariant(part: PartUnderTest, draw: Draw) -> None:
    """2^k."""
    w = draw.normal(3, 16)
    factor = 2.0 ** draw.choice("k", [-20, 3, -3, 10])
    quantizer, _, codes = quantized(part, draw, w)
    scaled = quantizer.quantize(w * factor)
    assert torch.equal(scaled.codes, codes.codes), f"weights × {factor} have other codes"
    assert torch.equal(scaled.dequantize(torch.float64), codes.dequantize(torch.float64) * factor), (
        "values don't scale"
    )


@property_of(
    "quantizer",
    statement="On a symmetric grid negated weights give the negated result.",
    formula="Q(−w) = −Q(w)",
    catches="−128 without +128, floor",
    tier="bit",
    examples=20,
)
def odd_when_symmetric(part: PartUnderTest, draw: Draw) -> None:
    """Negate."""
    quantizer, w, codes = quantized(part, draw, draw.normal(3, 16, scale=draw.scale()))
    if not getattr(quantizer.config, "symmetric", False):
        raise NotApplicable("its grid isn't symmetric under this config")
    back = quantizer.quantize(-w).dequantize(torch.float64)
    assert torch.equal(back, -codes.dequantize(torch.float64)), "−w doesn't give minus the result"


@property_of(
    "quantizer",
    statement="Without statistics, larger weights of one group get no smaller values.",
    formula="w_i ≤ w_j ⇒ ŵ_i ≤ ŵ_j",
    catches="codes that overflow, signs lost in packing",
    examples=20,
)
def monotone_in_a_group(part: PartUnderTest, draw: Draw) -> None:
    """Sort inside of each group."""
    _, w, codes = quantized(part, draw)
    back = codes.dequantize(torch.float64)
    for group in codes.groups.unique():
        columns = (codes.groups == group).nonzero().flatten()
        order = w[:, columns].argsort(dim=1)
        ordered = back[:, columns].gather(1, order)
        assert (ordered.diff(dim=1) >= -1e-12 * back.abs().max()).all(), "a larger weight has a smaller value"


@property_of(
    "quantizer",
    statement="Without statistics a group's codes depend on that group, and a row's on that row.",
    formula="codes of group g depend on group g only",
    catches="a scale that is read from another group (torch-xpu-ops#5001)",
    seen="torch-xpu-ops#5001",
    tier="bit",
    examples=25,
)
def groups_are_local(part: PartUnderTest, draw: Draw) -> None:
    """Change the first group of the first row."""
    w = draw.normal(3, 21)
    quantizer, _, codes = quantized(part, draw, w)
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
    formula="MSE(8 bits) < MSE(4 bits)/50",
    catches="a number of bits that is ignored",
    tier="stat",
    tolerance="Steps are 17 times smaller, squares 290 times; 512 weights deviate by a few per cent.",
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
    formula="w ∋ NaN, ∞ ⇒ UserError",
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


@property_of(
    "quantizer",
    statement="With statistics the error on the calibration data is below that of quantizing without them, and never above.",
    formula="tr(ΔW H ΔWᵀ) ≤ that of rounding to nearest, < for some weights of many inputs",
    catches="an update with the wrong sign or the wrong factor, data that are given up for one input that is always zero, a "
    "solver that is made for weights of one type",
    tolerance="Equal results may be summed in another order.",
    examples=96,
    excuse=lambda part: None if part.cls.calibrated else "it looks at no data",
)
def calibration_helps(part: PartUnderTest, draw: Draw) -> None:
    """Σ Δw H Δwᵀ."""
    subject = part.bench.subject(part, draw)
    inputs, outputs = draw.choice("inputs", [16, 16, 3, 5]), draw.choice("outputs", [6, 6, 1])
    seen, gains = statistics(draw, inputs), []
    dtype = draw.choice("weights", [torch.float32, torch.float64, torch.bfloat16])
    for _ in range(4):
        w = draw.normal(outputs, inputs).to(dtype)

        def error(codes: Codes, w: Tensor = w) -> float:
            delta = codes.dequantize(torch.float64) - w
            return float((delta @ seen.hessian.double() * delta).sum())

        with_data, without = error(subject.part.quantize(w, seen)), error(subject.part.quantize(w))
        assert with_data <= without * (1 + 1e-6), f"error {with_data:.5g} with the data, {without:.5g} without"
        gains.append(without - with_data)
    if (outputs, inputs) == (6, 16):
        assert max(gains) > 0, "of four weights none is quantized better with the data than without"


@property_of(
    "quantizer",
    statement="With an identity Hessian the result is that of quantizing without statistics.",
    formula="H = 1 ⇒ Q_H(w) = Q(w)",
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
