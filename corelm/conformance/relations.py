"""The laws between two ways of computing the same that all kinds share: definition, compiled, computed again, alone."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from corelm.conformance.bench import Subject, close, leaves, same_bits
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.general import excuse_module_call, floating

BACKENDS: Final = ("eager", "aot_eager_decomp_partition")
"""What runs the graphs: torch's operators one by one; by turns with the gradient's graph traced as well, which is dear."""


def _no_reference(part: PartUnderTest) -> str | None:
    return None if hasattr(part.cls, "reference") else "it brings no reference"


@property_of(
    "*",
    statement="A part computes what its own reference says: the definition in float64, in plain loops.",
    formula="part(x) = reference(x)",
    catches="a fast way that isn't the same: chunks, fused kernels, rearranged sums, a scale that is forgotten",
    tolerance="Both are float64; sums in another order differ by some tens of 10⁻¹⁶ of the largest term.",
    examples=82,
    excuse=_no_reference,
)
def equals_its_reference(part: PartUnderTest, draw: Draw) -> None:
    """Side by side."""
    subject: Subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    with torch.no_grad():
        expected = part.bench.reference(subject, inputs)
        close(part.bench.call(subject, inputs), expected, "the part and its reference", 1e-9)


def _gradients(subject: Subject, result: Any, weights: list[Tensor]) -> list[Tensor | None]:
    """Gradients of all parameters for a weighted sum of the results."""
    subject.part.zero_grad()
    found = [leaf for leaf in leaves(result) if floating(leaf)]
    total = torch.stack([(x.double() * w).sum() for x, w in zip(found, weights, strict=True)]).sum()
    if total.requires_grad:
        total.backward()
    return [None if p.grad is None else p.grad.clone() for p in subject.part.parameters()]


@contextlib.contextmanager
def _fresh_compiler() -> Iterator[None]:
    """Without graphs of other examples, its warnings of breaks, and the thread that its progress bars would start."""
    bars = importlib.import_module("tqdm").tqdm if importlib.util.find_spec("tqdm") else mock.Mock()
    silent = logging.root.manager.disable
    torch._dynamo.reset()
    logging.disable(logging.WARNING)
    try:
        with mock.patch.object(bars, "monitor_interval", 0):
            yield
    finally:
        logging.disable(silent)
        torch._dynamo.reset()


def _weights(draw: Draw, result: Any) -> list[Tensor]:
    return [draw.normal(*leaf.shape) for leaf in leaves(result) if floating(leaf)]


@property_of(
    "*",
    statement="Compiled, a part gives the same results and gradients; as one graph where it says so.",
    formula="compile(part)(x) = part(x), and so are the gradients",
    catches="a branch on values that was taken while tracing, state that is changed outside of the graph",
    tolerance="The compiler's decompositions round otherwise, by some units in float64's last place.",
    examples=4,
    excuse=excuse_module_call,
    needs=("deterministic",),
)
def compiled_equals_eager(part: PartUnderTest, draw: Draw) -> None:
    """Traced by torch.compile, forward and backward, and run without generating code."""
    subject: Subject = part.bench.subject(part, draw)
    program = part.bench.program(subject, part.bench.inputs(subject, draw))
    expected = program()
    weights = _weights(draw, expected)
    wanted = _gradients(subject, expected, weights)
    # A part may well be of one graph, and have another in a slot that is not.
    one_graph = all(getattr(type(module), "one_graph", True) for module in subject.part.modules())
    with _fresh_compiler():
        compiled = torch.compile(program, backend=draw.choice("backend", BACKENDS), fullgraph=one_graph)
        try:
            result = compiled()  # type: ignore[no-untyped-call]
        except Exception as error:
            if not one_graph or not type(error).__module__.startswith("torch."):
                raise
            why = str(error).strip().partition("\n")[0]
            raise AssertionError(
                f"it isn't one graph ({why}); write it without looking at values, or declare one_graph = False"
            ) from error
        found = _gradients(subject, result, weights)
    close(result, expected, "compiled and not", 1e-10)
    close([g for g in found if g is not None], [g for g in wanted if g is not None], "gradients, compiled and not")


@property_of(
    "*",
    statement="Computing a part again in the backward pass instead of keeping its results changes no gradient.",
    formula="∇ checkpoint(part)(x) = ∇ part(x), dropout included",
    catches="a random generator of its own, memory of earlier calls, work on what was handed in",
    tier="bit",
    examples=3,
    excuse=excuse_module_call,
    needs=("deterministic",),
)
def recomputing_changes_nothing(part: PartUnderTest, draw: Draw) -> None:
    """In training mode, from one random state."""
    subject: Subject = part.bench.subject(part, draw)
    program = part.bench.program(subject, part.bench.inputs(subject, draw))
    subject.part.train()
    found: list[Any] = []
    weights: list[Tensor] = []
    for again in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            result = checkpoint(program, use_reentrant=False) if again else program()
            weights = weights or _weights(draw, result)
            found.append([result, _gradients(subject, result, weights)])
    assert same_bits(found[0], found[1]), "recomputed in the backward pass, results or gradients are others"


@property_of(
    "*",
    statement="A batch without rows gives a result without rows.",
    formula="part(x[:0]) = part(x)[:0]",
    catches="a division by the number of rows, a maximum over nothing, reshape(-1) that can't guess",
    tier="bit",
    examples=4,
    excuse=excuse_module_call,
)
def takes_an_empty_batch(part: PartUnderTest, draw: Draw) -> None:
    """As the last process of several may get it, with gradients, in training too."""
    subject: Subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    shapes = [(0, *leaf.shape[1:]) for leaf in leaves(part.bench.call(subject, inputs)) if isinstance(leaf, Tensor)]
    cut = {name: value[:0] if isinstance(value, Tensor) else value for name, value in inputs.items()}
    for training in (False, True):
        subject.part.train(training)
        with torch.random.fork_rng(devices=[]):
            found = part.bench.call(subject, cut)
        given = [tuple(leaf.shape) for leaf in leaves(found) if isinstance(leaf, Tensor)]
        assert given == shapes, f"shapes {given}, expected {shapes}"
        total = sum(leaf.sum() for leaf in leaves(found) if floating(leaf) and leaf.requires_grad)
        if isinstance(total, Tensor):
            total.backward()
    for name, parameter in subject.part.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
