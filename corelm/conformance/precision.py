"""The laws of low precision and of devices that all kinds of modules share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor, nn

from corelm.conformance.bench import Subject, leaves, moved
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.general import excuse_module_call, floating

ALLOWED: Final = 8.0
"""Rounding errors that a result may have, each the size of what one rounding of all inputs and parameters does."""

PERTURBED: Final = 3
"""Random roundings from which that size is taken."""


def _with(inputs: dict[str, Any], change: Any) -> dict[str, Any]:
    return {name: change(value) if floating(value) else value for name, value in inputs.items()}


def _results(value: Any) -> list[Tensor]:
    return [leaf.detach().double().cpu() for leaf in leaves(value) if floating(leaf)]


@property_of(
    "*",
    statement="In float32 and in bfloat16 the result is that of the same part in float64, up to rounding.",
    formula="|part_low(x) − part_64(x)| ≤ 8 · (δ + ε · max|y|), δ what rounding every input and parameter once changes",
    catches="work in a narrower type than the activations have, a table or a sum in half precision, an overflow",
    seen="transformers#29285, sglang#27540",
    tier="num",
    tolerance="δ is measured, so that each part's own condition counts; a chain of n roundings errs by about √n of δ, "
    "and the longest chain here has some sixty.",
    examples=10,
    excuse=lambda part: excuse_module_call(part) or _no_float_inputs(part),
)
def follows_float64(part: PartUnderTest, draw: Draw) -> None:
    """The part against itself with the very same numbers in float64."""
    dtype, device = draw.choice("dtype", [torch.float32, torch.bfloat16]), draw.device()
    subject: Subject = part.bench.subject(part, draw, dtype=dtype)
    inputs = _with(part.bench.inputs(subject, draw), lambda x: x.to(dtype))
    if isinstance(subject.part, nn.Module):
        subject.part.to(device)
    with torch.no_grad():
        found = _results(part.bench.call(subject, moved(inputs, device)))
        subject.part.to("cpu", torch.float64)
        wide = _with(inputs, lambda x: x.double())
        exact = _results(part.bench.call(subject, wide))
        spread = _spread(part, draw, subject, wide, torch.finfo(dtype).eps, exact)
    for low, high, moves in zip(found, exact, spread, strict=False):
        assert low.isfinite().all(), f"not finite in {dtype}"
        allowed = ALLOWED * (moves + torch.finfo(dtype).eps * float(high.abs().max() if high.numel() else 0))
        error = float((low - high).abs().max()) if high.numel() else 0.0
        assert error <= allowed + 1e-30, f"off by {error:.3g} in {dtype}, rounding explains {allowed:.3g}"


def _spread(
    part: PartUnderTest, draw: Draw, subject: Subject, inputs: dict[str, Any], eps: float, exact: list[Tensor]
) -> list[float]:
    """How far results move when every input and parameter is moved by its last digit, up or down by chance."""
    kept = {name: tensor.clone() for name, tensor in subject.part.state_dict().items()}
    spread = [0.0] * len(exact)

    def nudged(x: Tensor) -> Tensor:
        return x * (1 + eps * (2 * torch.randint(2, x.shape, generator=draw.generator()) - 1))

    for _ in range(PERTURBED):
        for name, tensor in subject.part.state_dict().items():
            if floating(tensor):
                tensor.copy_(nudged(kept[name]))
        found = _results(part.bench.call(subject, _with(inputs, nudged)))
        moves = [float((a - b).abs().max()) if a.numel() else 0.0 for a, b in zip(found, exact, strict=True)]
        spread = [max(pair) for pair in zip(spread, moves, strict=True)]
    subject.part.load_state_dict(kept)
    return spread


def _no_float_inputs(part: PartUnderTest) -> str | None:
    return None if getattr(part.bench, "activations", True) else f"parts of kind {part.kind} choose their own type"


@property_of(
    "*",
    statement="Every tensor that a part makes is on the device of its inputs and parameters.",
    formula="parameters and inputs on d ⇒ all that is made is on d",
    catches="torch.arange or torch.zeros without a device, a table kept on the CPU",
    tier="bit",
    tolerance="Held on the meta device, which is on every machine and refuses what mixes with others.",
    examples=4,
    excuse=excuse_module_call,
)
def stays_on_its_device(part: PartUnderTest, draw: Draw) -> None:
    """Run without numbers."""
    subject: Subject = part.bench.subject(part, draw, dtype=torch.float32)
    inputs = moved(_with(part.bench.inputs(subject, draw), lambda x: x.float()), "meta")
    for module in (subject.part, *subject.arguments):
        if isinstance(module, nn.Module):
            module.to("meta")
    try:
        with torch.no_grad(), _no_autocast_on_meta():
            found = part.bench.call(subject, inputs)
    except NotImplementedError as error:
        raise NotApplicable("what it does depends on values, which the meta device doesn't have") from error
    except RuntimeError as error:
        if "item() cannot be called on meta" in str(error):
            raise NotApplicable("it looks at values, which the meta device doesn't have") from error
        if "meta" not in str(error):
            raise
        raise AssertionError(f"tensors of two devices meet: {error}") from error
    wrong = [str(leaf.device) for leaf in leaves(found) if floating(leaf) and leaf.device.type != "meta"]
    assert not wrong, f"a result is on {wrong[0]}, not on the device of the inputs"


@contextlib.contextmanager
def _no_autocast_on_meta() -> Iterator[None]:
    """torch knows no autocast there; parts switch it off around sums that must be wide."""
    real = torch.autocast

    def autocast(device: str, *args: Any, **options: Any) -> Any:
        return contextlib.nullcontext() if device == "meta" else real(device, *args, **options)

    with mock.patch.object(torch, "autocast", autocast):
        yield
