"""Properties of optimizers that see tensors: their shapes, types, places and bytes, and the kernels that move them."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args
from unittest import mock

import torch
from torch import Tensor, nn

from corelm.conformance.bench import close, leaves, same_bits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.optimizer.bench import current, fresh, move
from corelm.kinds.parameters import ParameterInfo


@property_of(
    "optimizer",
    statement="Ways to compute the same step (the values of an option `kernel`) give the same path.",
    formula="|p_fused − p_loop| ≤ 1e-12",
    catches="a fused kernel that counts steps from another number, or decays in another order",
    tolerance="float64, three steps of the same few operations in another order: some 1e-15 each",
    examples=6,
    excuse=lambda part: None if "kernel" in part.cls.Config.model_fields else "it computes its step in one way",
)
def kernels_agree(part: PartUnderTest, draw: Draw) -> None:
    """Every kernel on the same gradients, one of which is missing now and then."""
    subject = part.bench.subject(part, draw)
    gradients = part.bench.inputs(subject, draw)["gradients"]
    late = draw.integer("late", 0, len(subject.arguments[0]) - 1)
    paths = {}
    for kernel in get_args(part.cls.Config.model_fields["kernel"].annotation):
        config = type(subject.config).model_validate({**subject.config.model_dump(), "kernel": kernel})
        made = type(subject.part)(config, fresh(subject).parameters)
        for step, given in enumerate(gradients):
            move(made, [None if i == late and step == 1 else g for i, g in enumerate(given)])
        paths[kernel] = current(made)
    (first, wanted), *others = paths.items()
    for kernel, found in others:
        close(found, wanted, f"kernels {kernel} and {first}", 1e-12)


@property_of(
    "optimizer",
    statement="Scalars, empty, transposed and stacked parameters are updated as flat, no, contiguous and single ones.",
    formula="step(pᵀ) = step(p)ᵀ in memory, step([W₁, W₂]) = [step(W₁), step(W₂)], step(() ) = step((1,))",
    catches="view() on a parameter that isn't contiguous, experts taken for one matrix, a scalar that has no axis",
    tolerance="float64; a stack may go through another kernel than its members, whose sums differ by some 1e-15",
    examples=6,
)
def shapes_do_not_matter(part: PartUnderTest, draw: Draw) -> None:
    """The same numbers in two shapes."""
    subject = part.bench.subject(part, draw)
    square, stack, one = draw.normal(4, 6), draw.normal(2, 3, 5), draw.normal(1)
    pulls = [[draw.normal(*t.shape) for t in (square, stack, one)] for _ in range(2)]
    matrix, experts, norm = (
        ParameterInfo("matrix", fan_in=6),
        ParameterInfo("matrix", fan_in=5, stacked=1),
        ParameterInfo("norm"),
    )

    def stepped(
        *entries: tuple[ParameterInfo, Tensor], shape: Callable[[list[Tensor]], list[Tensor]]
    ) -> list[Tensor]:
        named = [(f"parameter {n}", nn.Parameter(t), info) for n, (info, t) in enumerate(entries)]
        made = type(subject.part)(subject.config, named)
        for given in pulls:
            move(made, shape(given))
        return current(made)

    plain = stepped(
        (matrix, square.clone()), (matrix, stack[0].clone()), (matrix, stack[1].clone()), (norm, one.clone()),
        shape=lambda g: [g[0], g[1][0], g[1][1], g[2]],
    )  # fmt: skip
    odd = stepped(
        (matrix, square.T.contiguous().T), (experts, stack.clone()), (norm, one[0].clone()), (norm, torch.zeros(0)),
        shape=lambda g: [g[0].T.contiguous().T, g[1], g[2][0], torch.zeros(0)],
    )  # fmt: skip
    close(odd[0], plain[0], "a matrix that is stored transposed, and one that isn't", 1e-9)
    close(odd[1], torch.stack(plain[1:3]), "a stack of two matrices, and each of them alone", 1e-9)
    close(odd[2][None], plain[3], "a scalar, and a vector of one", 1e-9)


@property_of(
    "optimizer",
    statement="Parameters are updated where they are: their memory stays, so that tied and sharded views stay views.",
    formula="address(p after) = address(p before)",
    catches="p.data = …, which cuts a tied head off from its embedding",
    tier="bit",
    examples=3,
)
def moves_in_place(part: PartUnderTest, draw: Draw) -> None:
    """Addresses before and after."""
    subject = part.bench.subject(part, draw)
    optimizer = fresh(subject)
    before = [p.data_ptr() for _, p, _ in optimizer.parameters]
    for gradients in part.bench.inputs(subject, draw)["gradients"]:
        move(optimizer, gradients)
    moved = [name for (name, p, _), was in zip(optimizer.parameters, before, strict=True) if p.data_ptr() != was]
    assert not moved, f"put elsewhere in memory: {', '.join(moved)}"


@property_of(
    "optimizer",
    statement="In float32 it goes the way of float64.",
    formula="|p32 − p64| ≤ 2⁻¹⁶ · max(1, |p64|)",
    catches="moments in bfloat16, an eps that float32 can't tell from zero, squares that underflow",
    tier="num",
    tolerance="three steps, each of some ten rounded operations on numbers near one (2⁻²⁴ each), and eight bits to spare "
    "for an iteration such as Newton–Schulz that magnifies them",
    examples=6,
)
def float32_follows(part: PartUnderTest, draw: Draw) -> None:
    """The same gradients in both."""
    subject = part.bench.subject(part, draw, precision="fp32")
    gradients = part.bench.inputs(subject, draw)["gradients"]
    exact = fresh(subject)
    rounded = type(subject.part)(
        subject.config, [(name, nn.Parameter(p.detach().float()), info) for name, p, info in exact.parameters]
    )
    for given in gradients:
        move(exact, given)
        move(rounded, [g.float() for g in given])
    for (name, a, _), (_, b, _) in zip(rounded.parameters, exact.parameters, strict=True):
        assert a.dtype == torch.float32, f"{name} became {a.dtype}"
        close(a.double(), b, f"{name} in float32 and in float64", 2.0**-16)


@property_of(
    "optimizer",
    statement="What it says that it keeps for a parameter is what it keeps.",
    formula="Σ bytes(tensors of state) = Σ_p state_bytes(p)",
    catches="a third moment that the plan of memory doesn't know of, state in another dtype",
    tier="bit",
    examples=4,
)
def state_is_as_large_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Count the bytes of all tensors after a step."""
    subject = part.bench.subject(part, draw)
    optimizer = fresh(subject)
    move(optimizer, part.bench.inputs(subject, draw)["gradients"][0])
    kept = sum(leaf.nbytes for leaf in leaves(optimizer.state_dict()) if isinstance(leaf, Tensor))
    told = [type(optimizer).state_bytes(subject.config, p, info) for _, p, info in optimizer.parameters]
    if None in told:
        raise NotApplicable("it doesn't say what it keeps")
    assert kept == sum(told), f"it keeps {kept} bytes after a step, state_bytes says {sum(told)}"


@property_of(
    "optimizer",
    statement="zero_grad forgets every gradient, so that the next step sees those of its own batch only.",
    formula="∂p = None (or 0) after zero_grad, for all p",
    catches="gradients that pile up from step to step, of some parameters or of all",
    tier="bit",
    examples=4,
)
def forgets_gradients(part: PartUnderTest, draw: Draw) -> None:
    """After a step, and before the next."""
    subject = part.bench.subject(part, draw)
    optimizer = fresh(subject)
    move(optimizer, part.bench.inputs(subject, draw)["gradients"][0])
    optimizer.zero_grad()
    kept = [name for name, p, _ in optimizer.parameters if p.grad is not None and bool(p.grad.any())]
    assert not kept, f"{', '.join(kept)} still have a gradient"


@property_of(
    "optimizer",
    statement="Under `precision: auto` it computes in bfloat16 where the processor multiplies that, else in float32.",
    formula="auto = bf16 on a processor that has it, auto = fp32 on one that hasn't, bf16 ≠ fp32",
    catches="an automatic choice that is always the same, or that nobody makes",
    tier="bit",
    examples=4,
    excuse=lambda part: None if "precision" in part.cls.Config.model_fields else "it names no precision",
)
def auto_precision_is_the_hardwares(part: PartUnderTest, draw: Draw) -> None:
    """On a processor with bfloat16 and on one without, as torch reports them; float32 parameters."""
    subject = part.bench.subject(part, draw, precision="auto")
    gradients = part.bench.inputs(subject, draw)["gradients"]

    def path(precision: str, hardware: bool) -> list[Tensor]:
        config = type(subject.config).model_validate({**subject.config.model_dump(), "precision": precision})
        entries = [(name, nn.Parameter(p.detach().float()), info) for name, p, info in fresh(subject).parameters]
        with mock.patch.object(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": hardware}):
            made = type(subject.part)(config, entries)
            for given in gradients:
                move(made, [g.float() for g in given])
        return current(made)

    low, single = path("bf16", False), path("fp32", True)
    assert not same_bits(low, single), "in bfloat16 and in float32 it goes the same way"
    assert same_bits(path("auto", True), low), "auto isn't bf16 where the processor has that"
    assert same_bits(path("auto", False), single), "auto isn't fp32 where the processor has no bfloat16"
