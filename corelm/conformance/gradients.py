"""The laws of gradients that all kinds of modules share."""

from __future__ import annotations

import torch
from torch import Tensor

from corelm.conformance.bench import Subject, leaves
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.general import excuse_module_call, floating


@property_of(
    "*",
    statement="Every trainable parameter receives a gradient, and all gradients are finite.",
    formula="∀ trainable p: ∂part/∂p ≠ 0 on one of six draws",
    catches="a detached statistic, a dead parameter, an option that is never used",
    examples=4,
    excuse=excuse_module_call,
)
def gradients_reach_every_parameter(part: PartUnderTest, draw: Draw) -> None:
    """Collect gradients over several draws of inputs."""
    subject: Subject = part.bench.subject(part, draw)
    silent = {name for name, p in subject.part.named_parameters() if p.requires_grad} - part.bench.idle(subject)
    for _ in range(6):
        subject.part.zero_grad()
        outputs = part.bench.call(subject, part.bench.inputs(subject, draw))
        total = sum(
            (leaf * torch.randn(leaf.shape, generator=draw.generator(), dtype=leaf.dtype)).sum()
            for leaf in leaves(outputs)
            if isinstance(leaf, Tensor) and leaf.requires_grad
        )
        if isinstance(total, Tensor):
            total.backward()
        for name, parameter in subject.part.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
                if parameter.grad.abs().sum() > 0:
                    silent.discard(name)
    assert not silent, f"no gradient in six draws: {', '.join(sorted(silent))}"


@property_of(
    "*",
    statement="Gradients are derivatives: along any direction of parameters and inputs they give the output's change.",
    formula="⟨∇f, v⟩ = (f(z + hv) − f(z − hv)) / 2h",
    catches="a detached statistic, a wrong hand-written backward pass",
    tolerance="Central differences err by h² f‴; two widths h tell how much that is, ten times it is allowed.",
    examples=6,
    excuse=excuse_module_call,
)
def gradients_are_derivatives(part: PartUnderTest, draw: Draw) -> None:
    """⟨∇f, v⟩ against central differences of two widths, whose difference bounds their error."""
    subject: Subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    moved = [p for p in subject.part.parameters() if p.requires_grad]
    moved += [x.requires_grad_() for x in leaves(inputs) if floating(x) and x.dtype == torch.float64]
    outputs = [x for x in leaves(part.bench.call(subject, inputs)) if floating(x)]
    weights, direction = [draw.normal(*x.shape) for x in outputs], [draw.normal(*p.shape) for p in moved]
    if not any(x.requires_grad for x in outputs):
        raise NotApplicable("what it gives depends on no tensor that could be learnt")
    loss = torch.stack([(x.double() * w).sum() for x, w in zip(outputs, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, moved, allow_unused=True)
    along = sum(float((g * v).sum()) for g, v in zip(gradients, direction, strict=True) if g is not None)

    def value(at: float) -> float:
        with torch.no_grad():
            for p, v in zip(moved, direction, strict=True):
                p.add_(v, alpha=at)
            found = [x for x in leaves(part.bench.call(subject, inputs)) if floating(x)]
            total = sum(float((x.double() * w).sum()) for x, w in zip(found, weights, strict=True))
            for p, v in zip(moved, direction, strict=True):
                p.sub_(v, alpha=at)  # only now: an output may be an input
        return total

    wide, narrow = ((value(h) - value(-h)) / (2 * h) for h in (2e-5, 1e-5))
    allowed = 10 * abs(wide - narrow) + 1e-5 * max(1.0, abs(narrow))
    assert abs(along - narrow) <= allowed, f"the gradient says {along:.8g}, the change is {narrow:.8g}"
