"""Properties of kernels: products with codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.quantizer import Codes, consecutive
from corelm.registration import active

MINIMUM = 3
"""So many of these properties must say something about every part of the kind, and hold."""


BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16


class KernelBench(Bench):
    """Codes are drawn; those that a kernel doesn't support are passed over."""

    kind = "kernel"


SORTS: Final = 5
"""Sorts of zero points; the seed says which."""


@dataclass(frozen=True)
class Setting:
    """Sizes of codes and of what they are multiplied with; group 0: one per output."""

    bits: int
    outputs: int
    inputs: int
    group: int
    symmetric: bool
    dtype: torch.dtype
    rows: int

    def codes(self, seed: int) -> Codes:
        """Codes of these sizes."""
        groups = consecutive(self.inputs, self.group, torch.device("cpu"))
        shape, top, generator = (
            (self.outputs, int(groups.max()) + 1),
            2**self.bits,
            torch.Generator().manual_seed(seed),
        )
        middle = torch.full(shape, top // 2)
        return Codes(
            codes=torch.randint(top, (self.outputs, self.inputs), generator=generator).to(torch.uint8),
            scale=torch.rand(shape, generator=generator) * 0.1 + 0.01,
            zero=(middle if self.symmetric else self._zero(shape, seed)).to(torch.uint8),
            groups=groups,
            bits=self.bits,
        )

    def _zero(self, shape: tuple[int, int], seed: int) -> Tensor:
        """Zero points anywhere, in one half of the codes, or close to the middle and on one side of it."""
        top = 2**self.bits
        middle = top // 2
        sorts = ((0, top), (0, middle + 1), (middle, top), (middle, middle + 3), (middle - 2, middle + 1))
        low, high = sorts[seed % SORTS]
        return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed + 1))


SETTINGS: Final = tuple(
    Setting(*choice)
    for choice in product(
        (4, 8, 3),
        (32, 16, 5),
        (64, 32, 7, 128),
        (0, 32, 64, 16),
        (True, False),
        (torch.bfloat16, torch.float32, torch.float16, torch.float64),
        (3, 1, 8, 40),
    )
)


@cache
def _suitable(part: PartUnderTest, config: str) -> tuple[Setting, ...]:
    """Settings that a kernel says it supports on this machine."""
    kernel = part.cls(part.cls.Config.model_validate_json(config))
    cpu = torch.device("cpu")
    return tuple(
        s
        for s in SETTINGS
        if any(
            kernel.supports(s.codes(seed), s.dtype, cpu, s.rows) is None
            for seed in range(1 if s.symmetric else SORTS)
        )
    )


def _supported(part: PartUnderTest, draw: Draw, *, rows: int = 1) -> tuple[Any, Codes, Tensor]:
    subject: Subject = part.bench.subject(part, draw)
    suitable = [s for s in _suitable(part, subject.config.model_dump_json()) if s.rows >= rows]
    if not suitable:
        raise NotApplicable("it supports nothing that the kit draws on this machine")
    setting = draw.choice("setting", suitable)
    packed, x = setting.codes(draw.seed()), draw.normal(setting.rows, setting.inputs)
    packed = replace(packed, scale=packed.scale.to(draw.choice("scales", [torch.float32, BFLOAT16, FLOAT16])))
    if (packed.scale.dtype, setting.dtype) == (BFLOAT16, FLOAT16):
        packed, x = _near_zero(packed, draw), x.abs()
    reason = subject.part.supports(packed, setting.dtype, torch.device("cpu"), setting.rows)
    if reason:  # it can depend on the codes themselves
        draw.reject()
    return subject.part, packed, x.to(setting.dtype)


def _near_zero(codes: Codes, draw: Draw) -> Codes:
    """Codes next to their zero points, as most of a model's are: what is lost far from zero is much beside them.

    Only for steps whose multiples the activations' type holds exactly: a kernel may keep a group's origin in that type.
    """
    zero = codes.zero.long()[:, codes.groups.long()]
    near = zero + torch.randint(-2, 3, zero.shape, generator=draw.generator())
    return replace(codes, codes=near.clamp(0, 2**codes.bits - 1).to(torch.uint8))


def _eps(dtype: torch.dtype) -> float:
    """Of the type of the activations; what codes stand for is defined in float32, however wide these are."""
    return max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


def _weights(codes: Codes) -> Tensor:
    """What codes stand for, by definition: (code − zero) · scale, each of its group."""
    group = codes.groups.long()
    return (codes.codes.double() - codes.zero.double()[:, group]) * codes.scale.double()[:, group]


@property_of(
    "kernel",
    statement="The product is that with the dequantized weights, up to rounding of the dtype.",
    formula="|y − x Ŵᵀ| ≤ 4 ε · |x| |Ŵ|ᵀ",
    catches="another group's scale, a zero point of another grid, codes in another order, an origin that is rounded to "
    "the type of short steps",
    seen="torch-xpu-ops#5001",
    tier="num",
    tolerance="One rounding of the weights, one of the sum in float32, one of the result, and one to spare.",
    examples=242,
)
def equals_dequantized(part: PartUnderTest, draw: Draw) -> None:
    """Against float64."""
    kernel, packed, x = _supported(part, draw)
    dtype = x.dtype
    y = kernel.matmul(x, kernel.prepare(packed, dtype)).double()
    weight = _weights(packed)
    exact = x.double() @ weight.T
    bound = x.double().abs() @ weight.abs().T
    worst = float(((y - exact).abs() / (bound + 1e-30)).max() / _eps(dtype))
    assert worst <= 4, f"off by {worst:.1f} times the rounding of {dtype}"


@property_of(
    "kernel",
    statement="The output has the dtype of the activations and a row per row; x and codes stay as they are.",
    formula="(rows, inputs) → (rows, outputs), dtype as x",
    catches="a float32 leak, work in place",
    tier="bit",
    examples=78,
)
def shape_and_dtype(part: PartUnderTest, draw: Draw) -> None:
    """Look."""
    kernel, packed, x = _supported(part, draw)
    dtype = x.dtype
    before, kept = x.clone(), packed.codes.clone()
    y = kernel.matmul(x, kernel.prepare(packed, dtype))
    assert y.shape == (len(x), packed.codes.shape[0]) and y.dtype == dtype, f"{tuple(y.shape)} {y.dtype}"
    assert torch.equal(before, x) and torch.equal(kept, packed.codes), "an input was changed"


@property_of(
    "kernel",
    statement="What it doesn't support it says in a sentence; it never raises.",
    formula="supports: codes, dtype, device, rows → None or a sentence",
    catches="a crash where the next kernel could have served",
    tier="io",
    examples=115,
)
def says_what_it_supports(part: PartUnderTest, draw: Draw) -> None:
    """All kinds of codes and dtypes."""
    subject = part.bench.subject(part, draw)
    setting = draw.choice("setting", SETTINGS)
    dtype = draw.choice("dtype", [torch.float64, setting.dtype])
    reason = subject.part.supports(
        setting.codes(draw.seed()), dtype, torch.device("cpu"), draw.choice("rows", [1, 4096])
    )
    assert reason is None or (isinstance(reason, str) and len(reason) > 5), f"supports says {reason!r}"


@property_of(
    "kernel",
    statement="Each row is multiplied on its own.",
    formula="y_i depends on x_i only",
    catches="a dynamic scale over all rows",
    tier="num",
    tolerance="Another row may change the order of sums, and so one rounding of the dtype per term.",
    examples=20,
)
def rows_are_independent(part: PartUnderTest, draw: Draw) -> None:
    """A large row beside small ones."""
    kernel, packed, x = _supported(part, draw, rows=2)
    dtype, loud = x.dtype, x.clone()
    prepared = kernel.prepare(packed, dtype)
    loud[0] *= 1000
    a, b = kernel.matmul(x, prepared)[1:].double(), kernel.matmul(loud, prepared)[1:].double()
    bound = x[1:].double().abs() @ _weights(packed).abs().T
    assert bool(((a - b).abs() <= 4 * _eps(dtype) * bound + 1e-30).all()), "a loud row changes its neighbours"


NAMED: Final[Mapping[str, tuple[Setting, ...]]] = {
    "int4-packed": tuple(
        Setting(*choice)
        for choice in product(
            (4,), (16, 48), (256, 512), (32, 64, 128, 256), (True, False), (BFLOAT16, FLOAT16), (1, 8)
        )
    ),
    "int8-packed": tuple(
        Setting(*choice) for choice in product((8,), (16, 5), (16, 80), (0,), (True,), (BFLOAT16, FLOAT16), (1, 8))
    ),
    "dequantize": SETTINGS,
}
"""What kernels of these names multiply, on every processor for which torch is made."""


@property_of(
    "kernel",
    statement="A kernel that takes a name of the field multiplies what that name says: int4-packed 4-bit codes in groups of "
    "32 to 256, int8-packed 8-bit codes with one step per output, dequantize everything, but after all others.",
    formula="supports(c) = None for all c of its name",
    catches="a condition that is never true, so that another kernel serves, slower, and nobody is told",
    tier="io",
    examples=40,
)
def takes_what_its_name_says(part: PartUnderTest, draw: Draw) -> None:
    """Among all that is promised."""
    name = getattr(part.cls, "formula", part.name)
    if name not in NAMED:
        raise NotApplicable("its name promises nothing")
    kernel, setting = part.bench.subject(part, draw).part, draw.choice("setting", NAMED[name])
    reason = kernel.supports(setting.codes(draw.seed()), setting.dtype, torch.device("cpu"), setting.rows)
    assert reason is None, f"it refuses what its name promises: {reason}"
    if name == "dequantize":
        before = [record.name for record in active().parts("kernel") if record.load().priority < kernel.priority]
        assert not before, f"it takes everything, and stands before {', '.join(before)}"
