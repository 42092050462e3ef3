"""Properties of kernels: products with codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.quantizer import Codes


class KernelBench(Bench):
    """Codes are drawn; those that a kernel doesn't support are passed over."""

    kind = "kernel"


def codes(draw: Draw, *, bits: int | None = None) -> Codes:
    """Any codes: bits, groups, zero points."""
    bits = bits or draw.choice("bits", [4, 8, 3])
    outputs, inputs = draw.choice("outputs", [32, 16, 5, 64]), draw.choice("inputs", [64, 32, 7, 128])
    group = draw.choice("group", [0, 32, 64, 16]) or inputs
    groups = torch.arange(inputs, dtype=torch.int32) // group
    count = int(groups.max()) + 1
    top, generator = 2**bits, draw.generator()
    symmetric = draw.choice("symmetric", [True, False])
    zero = (
        torch.full((outputs, count), top // 2)
        if symmetric
        else torch.randint(top, (outputs, count), generator=generator)
    )
    return Codes(
        codes=torch.randint(top, (outputs, inputs), generator=generator).to(torch.uint8),
        scale=draw.normal(outputs, count).abs().float() * 0.05 + 0.01,
        zero=zero.to(torch.uint8),
        groups=groups,
        bits=bits,
    )


def _supported(part: PartUnderTest, draw: Draw, dtype: torch.dtype) -> tuple[Any, Codes, Tensor]:
    subject: Subject = part.bench.subject(part, draw)
    packed, rows = codes(draw), draw.choice("rows", [1, 3, 8, 40])
    reason = subject.part.supports(packed, dtype, torch.device("cpu"), rows)
    if reason:
        raise NotApplicable(reason)
    return subject.part, packed, draw.normal(rows, packed.codes.shape[1]).to(dtype)


@property_of(
    "kernel",
    statement="The product is that with the dequantized weights, up to rounding of the dtype.",
    catches="another group's scale, a zero point of another grid, codes in another order",
    tier="num",
    examples=40,
)
def equals_dequantized(part: PartUnderTest, draw: Draw) -> None:
    """Against float64."""
    dtype = draw.choice("dtype", [torch.bfloat16, torch.float32, torch.float16])
    kernel, packed, x = _supported(part, draw, dtype)
    y = kernel.matmul(x, kernel.prepare(packed, dtype)).double()
    weight = packed.dequantize(torch.float64)
    exact = x.double() @ weight.T
    bound = x.double().abs() @ weight.abs().T
    worst = float(((y - exact).abs() / (bound + 1e-30)).max() / torch.finfo(dtype).eps)
    assert worst <= 4, f"off by {worst:.1f} times the rounding of {dtype}"


@property_of(
    "kernel",
    statement="The output has the dtype of the activations and a row per row; x and codes stay as they are.",
    catches="a float32 leak, work in place",
    tier="bit",
    examples=20,
)
def shape_and_dtype(part: PartUnderTest, draw: Draw) -> None:
    """Look."""
    dtype = draw.choice("dtype", [torch.bfloat16, torch.float32])
    kernel, packed, x = _supported(part, draw, dtype)
    before, kept = x.clone(), packed.codes.clone()
    y = kernel.matmul(x, kernel.prepare(packed, dtype))
    assert y.shape == (len(x), packed.codes.shape[0]) and y.dtype == dtype, f"{tuple(y.shape)} {y.dtype}"
    assert torch.equal(before, x) and torch.equal(kept, packed.codes), "an input was changed"


@property_of(
    "kernel",
    statement="What it doesn't support it says in a sentence; it never raises.",
    catches="a crash where the next kernel could have served",
    tier="io",
    examples=30,
)
def says_what_it_supports(part: PartUnderTest, draw: Draw) -> None:
    """All kinds of codes and dtypes."""
    subject = part.bench.subject(part, draw)
    dtype = draw.choice("dtype", [torch.float64, torch.bfloat16, torch.float32, torch.float16])
    reason = subject.part.supports(codes(draw), dtype, torch.device("cpu"), draw.choice("rows", [1, 4096]))
    assert reason is None or (isinstance(reason, str) and len(reason) > 5), f"supports says {reason!r}"


@property_of(
    "kernel",
    statement="Each row is multiplied on its own.",
    catches="a dynamic scale over all rows",
    tier="num",
    examples=20,
)
def rows_are_independent(part: PartUnderTest, draw: Draw) -> None:
    """A large row beside small ones."""
    dtype = torch.bfloat16 if draw.choice("dtype", ["bfloat16", "float32"]) == "bfloat16" else torch.float32
    kernel, packed, x = _supported(part, draw, dtype)
    if len(x) < 2:
        draw.reject()
    prepared = kernel.prepare(packed, dtype)
    loud = x.clone()
    loud[0] *= 1000
    a, b = kernel.matmul(x, prepared)[1:].double(), kernel.matmul(loud, prepared)[1:].double()
    bound = x[1:].double().abs() @ packed.dequantize(torch.float64).abs().T
    assert bool(((a - b).abs() <= 4 * torch.finfo(dtype).eps * bound + 1e-30).all()), (
        "a loud row changes its neighbours"
    )
