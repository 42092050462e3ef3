"""Properties of optimizers that take a name of the field: AdamW and Muon do what their papers say."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor, nn

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.optimizer.bench import DECAYED, current, decay_of, fresh, move
from corelm.kinds.parameters import ParameterInfo


def _not_adamw(part: PartUnderTest) -> str | None:
    return None if getattr(part.cls, "law", part.name) == "adamw" else "it isn't AdamW"


@property_of(
    "optimizer",
    statement="AdamW's first step is p(1 − lr·wd) − lr · g/(|g| + eps).",
    formula="p₁ = p₀(1 − ηλ) − η g/(|g| + ε)",
    catches="a missing bias correction, eps inside the root, the betas swapped",
    seen="pytorch#22628, keras#19051",
    tolerance="g/(|g| + ε) by two ways of rounding",
    examples=20,
    excuse=_not_adamw,
)
def first_step_of_adamw(part: PartUnderTest, draw: Draw) -> None:
    """Closed form, eps large enough to show; then a second step, where the betas show."""
    eps = draw.choice("eps", [1e-8, 1e-3, 1e-1])
    subject = part.bench.subject(part, draw, eps=eps)
    optimizer, decay = fresh(subject), decay_of(subject)
    roles, rate = getattr(subject.config, "decayed", DECAYED), optimizer.learning_rate
    beta1, beta2 = subject.config.betas
    start, (first, second, _) = current(optimizer), part.bench.inputs(subject, draw)["gradients"]
    move(optimizer, first)
    for (name, p, info), old, g in zip(optimizer.parameters, start, first, strict=True):
        kept = old * (1 - rate * decay) if info.role in roles else old
        close(p, kept - rate * g / (g.abs() + eps), f"{name} after the first step", 1e-9)
    middle = current(optimizer)
    move(optimizer, second)
    for (name, p, info), old, g, h in zip(optimizer.parameters, middle, first, second, strict=True):
        kept = old * (1 - rate * decay) if info.role in roles else old
        mean = (beta1 * (1 - beta1) * g + (1 - beta1) * h) / (1 - beta1**2)
        square = (beta2 * (1 - beta2) * g * g + (1 - beta2) * h * h) / (1 - beta2**2)
        close(p, kept - rate * mean / (square.sqrt() + eps), f"{name} after the second step", 1e-9)


@property_of(
    "optimizer",
    statement="AdamW goes the way of its formula, number by number, over many steps, sizes and missing gradients.",
    formula="m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p(1−ηλ) − η · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε), t counted "
    "per parameter",
    catches="a second moment that lags a step, a correction that stops, a step counter in low precision",
    tolerance="float64; twelve steps of a dozen operations, cancelled at most tenfold",
    examples=6,
    excuse=_not_adamw,
)
def path_of_adamw(part: PartUnderTest, draw: Draw) -> None:
    """Twelve steps of plain numbers; gradients of one size and then of another."""
    subject = part.bench.subject(part, draw)
    optimizer, decay = fresh(subject), decay_of(subject)
    roles, rate, eps = getattr(subject.config, "decayed", DECAYED), optimizer.learning_rate, subject.config.eps
    beta1, beta2 = subject.config.betas
    late, sizes = draw.integer("late", 0, 6), [1.0, draw.choice("later ×", [1.0, 1e6, 1e-6])]
    wanted = {name: p.detach().flatten().tolist() for name, p, _ in optimizer.parameters}
    state = {name: [[0.0, 0.0] for _ in numbers] for name, numbers in wanted.items()}
    counts = dict.fromkeys(wanted, 0)
    for step in range(12):
        scale = 1 - step / 12
        given: list[Tensor | None] = [
            None if number == late and step % 3 == 1 else draw.normal(*p.shape, scale=sizes[step >= 6])
            for number, (_, p, _) in enumerate(optimizer.parameters)
        ]
        move(optimizer, given, scale)
        for (name, _, info), gradient in zip(optimizer.parameters, given, strict=True):
            if gradient is None:
                continue
            counts[name] += 1
            kept = 1 - rate * scale * decay if info.role in roles else 1.0
            for place, g in enumerate(gradient.flatten().tolist()):
                m, v = state[name][place]
                m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
                state[name][place] = [m, v]
                mean, square = m / (1 - beta1 ** counts[name]), v / (1 - beta2 ** counts[name])
                wanted[name][place] = wanted[name][place] * kept - rate * scale * mean / (math.sqrt(square) + eps)
    for name, p, _ in optimizer.parameters:
        expected = torch.tensor(wanted[name], dtype=torch.float64).view(p.shape)
        close(p, expected, f"{name} after twelve steps, and the formula", 1e-10)


def _direction(part: PartUnderTest, draw: Draw, gradient: Tensor) -> Tensor:
    subject = part.bench.subject(part, draw, weight_decay=0.0, momentum=0.0, nesterov=False)
    parameter = nn.Parameter(torch.zeros_like(gradient))
    optimizer = type(subject.part)(
        subject.config, [("m.weight", parameter, ParameterInfo("matrix", gradient.shape[1]))]
    )
    move(optimizer, [gradient])
    return -parameter.detach() / parameter.detach().norm() * math.sqrt(min(gradient.shape))


def _not_muon(part: PartUnderTest) -> str | None:
    return None if getattr(part.cls, "law", part.name) == "muon" else "it doesn't orthogonalise"


@property_of(
    "optimizer",
    statement="Muon's direction has singular values near each other, whatever those of the gradient between 0.1 and 1.",
    formula="σ(dir(G)) ∈ [0.45, 1.6] for σ(G) ∈ [0.1, 1] · s",
    catches="too few iterations, no scaling beforehand",
    tolerance="five steps of the usual quintic give [0.68, 1.21]; bfloat16 and the normalisation by the norm take the rest",
    examples=8,
    excuse=_not_muon,
)
def orthogonalises(part: PartUnderTest, draw: Draw) -> None:
    """Singular values of the direction, on average one."""
    u, v = (torch.linalg.qr(draw.normal(n, n)).Q for n in (4, 6))
    values = torch.tensor([1.0, 0.7, 0.3, 0.1], dtype=torch.float64) * draw.choice("scale", [1.0, 1e-3, 1e3])
    direction = _direction(part, draw, u @ torch.diag(values) @ v[:4])
    found = torch.linalg.svdvals(direction)
    assert float(found.min()) > 0.45 and float(found.max()) < 1.6, f"singular values {found.tolist()}"


@property_of(
    "optimizer",
    statement="Muon's direction is five steps of Newton–Schulz from the gradient over its norm, by the quintic of its paper.",
    formula="X₀ = G/‖G‖, X ← aX + (bA + cA²)X, A = XXᵀ, five times; a, b, c = 3.4445, −4.7750, 2.0315",
    catches="four steps or six, which differ by a tenth; coefficients that are rounded or exchanged",
    tolerance="The same products in float64, once by singular values.",
    examples=6,
    excuse=_not_muon,
)
def direction_of_muon(part: PartUnderTest, draw: Draw) -> None:
    """By what the quintic makes of each singular value (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon)."""
    rows, columns = draw.choice("shape", [(4, 6), (6, 4), (5, 5)])
    optimizer = _matrix(part, draw, (rows, columns), momentum=0.0, nesterov=False)
    gradient = draw.normal(rows, columns, scale=draw.scale())
    move(optimizer, [gradient])
    u, values, v = torch.linalg.svd(gradient, full_matrices=False)
    values = values / gradient.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected, found = (u * values) @ v, -current(optimizer)[0]
    close(found / found.norm() * expected.norm(), expected, "the direction, and the quintic's five times", 1e-8)


@property_of(
    "optimizer",
    statement="Muon's direction turns with the gradient: dir(U G V) = U dir(G) V, and dir(Gᵀ) = dir(G)ᵀ; it descends.",
    formula="dir(U G V) = U dir(G) V, dir(Gᵀ) = dir(G)ᵀ, ⟨dir(G), G⟩ > 0",
    catches="an elementwise or per-column normalisation, a transpose that is forgotten",
    tolerance="the iteration may run in bfloat16, so that only two digits are equal",
    examples=8,
    excuse=_not_muon,
)
def turns_with_the_gradient(part: PartUnderTest, draw: Draw) -> None:
    """Rotate, transpose, project on the gradient."""
    gradient = draw.normal(4, 6)
    u, v = torch.linalg.qr(draw.normal(4, 4)).Q, torch.linalg.qr(draw.normal(6, 6)).Q
    direction = _direction(part, draw, gradient)
    # Iterations may run in bfloat16, so that only a few digits are equal.
    close(_direction(part, draw, u @ gradient @ v), u @ direction @ v, "dir(UGV) and U dir(G) V", 0.05)
    close(_direction(part, draw, gradient.T.contiguous()), direction.T, "dir(Gᵀ) and dir(G)ᵀ", 0.05)
    assert float((direction * gradient).sum()) > 0, "the direction is not one of descent"


def _matrix(part: PartUnderTest, draw: Draw, shape: tuple[int, int], **pins: Any) -> Any:
    """An optimizer of one matrix of zeros."""
    subject = part.bench.subject(part, draw, weight_decay=0.0, **pins)
    parameter = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    return type(subject.part)(subject.config, [("m.weight", parameter, ParameterInfo("matrix", shape[1]))])


@property_of(
    "optimizer",
    statement="Muon's momentum is a sum of gradients, and with Nesterov's look-ahead the gradient is added once more.",
    formula="Mₜ = μ Mₜ₋₁ + Gₜ, Δₜ ∝ dir(Gₜ + μ Mₜ) or dir(Mₜ)",
    catches="momentum that begins over, the look-ahead forgotten, gradients orthogonalised before they are summed",
    tolerance="float64 in, but the iteration may run in bfloat16: two of its digits",
    examples=8,
    excuse=lambda part: (
        _not_muon(part) or (None if "momentum" in part.cls.Config.model_fields else "it has no momentum")
    ),
)
def momentum_is_a_sum(part: PartUnderTest, draw: Draw) -> None:
    """The second step, against one of no momentum along the sum that the formula names."""
    share, ahead = draw.choice("momentum", [0.9, 0.5]), draw.choice("nesterov", [False, True])
    if "nesterov" not in part.cls.Config.model_fields:
        ahead = False
    optimizer = _matrix(part, draw, (4, 6), momentum=share, nesterov=ahead)
    first, second = draw.normal(4, 6), draw.normal(4, 6)
    move(optimizer, [first])
    before = current(optimizer)[0]
    move(optimizer, [second])
    total = share * first + second
    along = _direction(part, draw, second + share * total if ahead else total)
    found = before - current(optimizer)[0]
    close(found / found.norm() * math.sqrt(4), along, "the second step, and the direction of the sum", 0.05)


@property_of(
    "optimizer",
    statement="Muon's step has the size that its scale names: rms 0.2 per entry, or spectral √max(1, rows/columns).",
    formula="rms: ‖Δ‖_F/√(rc) ≈ 0.2η; spectral: σ(Δ) ≈ η√max(1, r/c)",
    catches="rows for columns, a root that is forgotten",
    tolerance="five Newton–Schulz steps leave singular values in [0.68, 1.21]; shapes are so long that a mistake is "
    "fourfold",
    examples=6,
    excuse=lambda part: _not_muon(part) or (None if "scale" in part.cls.Config.model_fields else "it names no scale"),
)
def size_as_named(part: PartUnderTest, draw: Draw) -> None:
    """Long and wide matrices."""
    named = draw.choice("scale", list(get_args(part.cls.Config.model_fields["scale"].annotation)))
    rows, columns = draw.choice("shape", [(2, 32), (32, 2)])
    optimizer = _matrix(part, draw, (rows, columns), scale=named)
    move(optimizer, [draw.normal(rows, columns)])
    found, rate = current(optimizer)[0], optimizer.learning_rate
    if named == "rms":
        share = float(found.norm()) / math.sqrt(rows * columns) / (0.2 * rate)
    elif named == "spectral":
        share = float(torch.linalg.svdvals(found).mean()) / (rate * math.sqrt(max(1.0, rows / columns)))
    else:
        raise NotApplicable(f"nothing is said about the scale {named!r}")
    assert 0.6 < share < 1.6, f"a step of {share:.2f} times the size that {named} means for {rows} × {columns}"
