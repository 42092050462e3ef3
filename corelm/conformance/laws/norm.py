"""Properties of norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.carriers import LayerContext
from corelm.kinds.parameters import declared

MINIMUM = 8
"""So many of these properties must say something about every part of the kind, and hold."""


class NormBench(Bench):
    """Norms take any leading axes."""

    kind = "norm"
    module = True

    def context(self, draw: Draw) -> Any:
        """Odd widths as well."""
        return LayerContext(draw.choice("dim", [16, 8, 5]), depth=2, context=32, vocab_size=24)

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with the number of features."""
        return (context.dim,)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Tokens of mixed magnitude."""
        return {"x": draw.normal(2, 3, subject.context.dim, scale=draw.scale())}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Normalise."""
        return subject.part(inputs["x"])


def _plain(part: PartUnderTest, draw: Draw, dtype: torch.dtype = torch.float64) -> tuple[Any, int]:
    """A norm as it is at the start: unit gain, no bias."""
    subject = part.bench.subject(part, draw, generic=False, dtype=dtype)
    return subject.part, subject.context.dim


def _statistic(part: PartUnderTest, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True) if part.cls.centred else x
    return centred.square().mean(-1)


@property_of(
    "norm",
    statement="Scaling the input by c changes the output by no more than eps explains.",
    formula="‖norm(cx) − norm(x)‖ ≤ ‖norm(x)‖ · eps / (2 min(σ², c²σ²))",
    catches="eps outside the root or not the declared one, a statistic over tokens",
    tolerance="First order of (1 + eps/σ²)^(−½), and one per cent for the rest.",
    examples=40,
)
def nearly_scale_free(part: PartUnderTest, draw: Draw) -> None:
    """‖norm(cx) − norm(x)‖ ≤ ‖norm(x)‖ · eps / (2 min(σ², c²σ²))."""
    norm, dim = _plain(part, draw)
    c = draw.choice("c", [0.1, 3.0, 1e3])
    x = draw.normal(4, dim, scale=draw.scale())
    y, scaled = norm(x), norm(c * x)
    sigma = _statistic(part, x)
    allowed = y.norm(dim=-1) * norm.epsilon / (2 * torch.minimum(sigma, c * c * sigma)) * 1.01 + 1e-9
    excess = float(((scaled - y).norm(dim=-1) - allowed).detach().max())
    assert excess <= 0, f"norm({c}·x) differs from norm(x) by {excess:.3g} more than eps={norm.epsilon} explains"


@property_of(
    "norm",
    statement="norm(−x) = −norm(x) without a bias.",
    formula="norm(−x) = −norm(x)",
    catches="an absolute value, a clamp on one side",
)
def odd(part: PartUnderTest, draw: Draw) -> None:
    """Reflect."""
    norm, dim = _plain(part, draw)
    x = draw.normal(4, dim, scale=draw.scale())
    close(norm(-x), -norm(x), "norm(−x) and −norm(x)", 1e-12)


@property_of(
    "norm",
    statement="Adding a constant to all features changes nothing where the norm is centred, and something where not.",
    formula="centred: norm(x + a·1) = norm(x); else ≠",
    catches="centring missing, or there without being declared",
    tolerance="A shift of 10³ costs three of float64's sixteen digits twice.",
)
def centring_as_declared(part: PartUnderTest, draw: Draw) -> None:
    """Shift all features."""
    norm, dim = _plain(part, draw)
    x = draw.normal(4, dim)
    shift = draw.choice("shift", [1.0, 10.0, 1e3])
    if part.cls.centred:
        close(norm(x + shift), norm(x), "shifted and not", 1e-8)
    else:
        assert float((norm(x + shift) - norm(x)).detach().abs().max()) > 1e-2, (
            "declared as not centred, but a shift is removed"
        )


@property_of(
    "norm",
    statement="With unit gain mean(y²) = σ²/(σ² + eps) exactly.",
    formula="mean(y²) = σ²/(σ² + eps), and mean(y) = 0 where centred",
    catches="ddof = 1, eps in the wrong place, an L1 norm, the wrong axis",
    examples=30,
)
def second_moment(part: PartUnderTest, draw: Draw) -> None:
    """Draw σ² near eps, where its place shows."""
    norm, dim = _plain(part, draw)
    ratio = draw.choice("σ²/eps", [0.01, 0.3, 1.0, 10.0, 100.0])
    x = draw.normal(4, dim, scale=(ratio * norm.epsilon) ** 0.5)
    y, sigma = norm(x), _statistic(part, x)
    close(y.square().mean(-1), sigma / (sigma + norm.epsilon), "mean(y²) and σ²/(σ²+eps)", 1e-10)
    if part.cls.centred:
        close(y.mean(-1), torch.zeros(4, dtype=y.dtype), "mean(y) and 0")


@property_of(
    "norm",
    statement="Permuting or slicing tokens permutes or slices the output.",
    formula="norm(PX) = P norm(X) for tokens P",
    catches="statistics over the batch or over time",
)
def tokenwise(part: PartUnderTest, draw: Draw) -> None:
    """Shuffle both leading axes."""
    subject = part.bench.subject(part, draw)
    x = draw.normal(3, 4, subject.context.dim, scale=draw.scale())
    rows, columns = draw.permutation(3), draw.permutation(4)
    y = subject.part(x)
    close(subject.part(x[rows][:, columns]), y[rows][:, columns], "permuted tokens")
    close(subject.part(x[:1, 1:3]), y[:1, 1:3], "sliced tokens")


@property_of(
    "norm",
    statement="Permuting features, and gains and biases with them, permutes the output.",
    formula="norm_{Pg,Pb}(Px) = P norm_{g,b}(x)",
    catches="a norm in groups of features that nobody declared, gains in another order",
    tolerance="Sums in another order differ by rounding in float64 only.",
    examples=10,
)
def features_are_alike(part: PartUnderTest, draw: Draw) -> None:
    """Shuffle the last axis."""
    subject = part.bench.subject(part, draw)
    dim = subject.context.dim
    x, order = draw.normal(4, dim, scale=draw.scale()), draw.permutation(dim)
    y = subject.part(x)
    with torch.no_grad():
        for _, parameter, _ in declared(subject.part):
            if parameter.shape == (dim,):
                parameter.copy_(parameter[order].clone())
    close(subject.part(x[:, order]), y[:, order], "permuted features")


@property_of(
    "norm",
    statement="Three times the gain gives three times the output (around the bias).",
    formula="norm_{3g}(x) = 3 norm_g(x)",
    catches="a gain that is added to or squared, an undeclared offset",
    seen="Liger-Kernel#85",
)
def homogeneous_in_gain(part: PartUnderTest, draw: Draw) -> None:
    """Scale what has the role of a gain, seen from the value where the norm is plain."""
    norm, dim = _plain(part, draw)
    gains = [(p, info) for _, p, info in declared(norm) if info.role == "norm"]
    if not gains:
        raise NotApplicable("it has no gain")
    x = draw.normal(4, dim)
    y = norm(x)
    with torch.no_grad():
        for gain, info in gains:
            gain.add_(2.0)  # the plain value stands for one, whatever it is
            assert info.constant is not None, "a gain begins at a fixed value"
    close(norm(x), 3 * y, "the output under the threefold gain, three times the output")


@property_of(
    "norm",
    statement="⟨∇ₓ⟨v, y⟩, x⟩ = ⟨v, y⟩ · eps/(σ² + eps): the norm's derivative along its own input.",
    formula="⟨∇ₓ⟨v, y⟩, x⟩ = ⟨v, y⟩ · eps/(σ² + eps)",
    catches="detached statistics, a wrong hand-written backward pass",
    tolerance="Two nearly equal terms cancel where eps is small beside σ²; one digit is given away.",
    examples=30,
)
def euler(part: PartUnderTest, draw: Draw) -> None:
    """Differentiate along x (centred where the norm is)."""
    norm, dim = _plain(part, draw)
    ratio = draw.choice("σ²/eps", [0.1, 1.0, 10.0])
    x = draw.normal(1, dim, scale=(ratio * norm.epsilon) ** 0.5).requires_grad_()
    v = draw.normal(1, dim)
    value = (v * norm(x)).sum()
    (gradient,) = torch.autograd.grad(value, x)
    along = (x - x.mean(-1, keepdim=True) if part.cls.centred else x).detach()
    sigma = float(_statistic(part, x.detach()))
    expected = value.detach() * norm.epsilon / (sigma + norm.epsilon)
    close((gradient * along).sum(), expected, "the derivative along x", 1e-9)


@property_of(
    "norm",
    statement="In half precision the result is that of float64 on the same input, rounded once.",
    formula="|norm_low(x) − norm_64(x)| ≤ 0.76 ulp",
    catches="statistics in low precision, a cast before the multiplication, an eps that float16 can't hold",
    seen="sglang#27540",
    tier="num",
    tolerance="Half a unit for the result and a quarter for a gain that is rounded before.",
    examples=30,
)
def rounded_once(part: PartUnderTest, draw: Draw) -> None:
    """Large and small float16, usual bfloat16."""
    dtype, scale = draw.choice(
        "dtype, magnitude",
        [(torch.bfloat16, 1.0), (torch.float16, 1e4), (torch.float16, 1e-3), (torch.bfloat16, 1e3)],
    )
    exact, dim = _plain(part, draw)
    x = (draw.normal(4, dim).clamp(-3, 3) * scale).to(dtype)
    half = part.cls(exact.config, dim).eval()
    half.load_state_dict(exact.state_dict())
    y, expected = half.to(dtype)(x).double(), exact(x.double())
    assert y.isfinite().all(), f"not finite in {dtype} at magnitude {scale}"
    # One rounding of the normalised value and one of its product with a unit gain.
    ulp = torch.finfo(dtype).eps * expected.abs().clamp(min=torch.finfo(dtype).tiny / torch.finfo(dtype).eps)
    worst = float(((y - expected).abs() / ulp).detach().max())
    assert worst <= 0.76, f"off by {worst:.2f} units in the last place in {dtype} at magnitude {scale}"


@property_of(
    "norm",
    statement="Zero gives exactly the bias (or zero), with finite gradients.",
    formula="norm(0) = bias, ∇norm(0) finite",
    catches="0/0",
    tier="bit",
    examples=5,
)
def zero_is_safe(part: PartUnderTest, draw: Draw) -> None:
    """Normalise nothing."""
    subject = part.bench.subject(part, draw)
    x = torch.zeros(2, subject.context.dim, dtype=torch.float64, requires_grad=True)
    y = subject.part(x)
    biases = [p for _, p, info in declared(subject.part) if info.role == "bias"]
    expected = biases[0].expand_as(y) if biases else torch.zeros_like(y)
    assert torch.equal(y, expected), "zero doesn't give the bias (or zero)"
    y.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all(), "the gradient at zero is not finite"


@property_of(
    "norm",
    statement="Normalising twice is normalising once, as far as eps allows, with unit gain.",
    formula="norm(norm(x)) = norm(x) + O(eps)",
    catches="a clamp, a hidden scale",
    tolerance="After one norm σ² is 1 − eps/σ², so that a second one changes by eps at most twice.",
)
def idempotent(part: PartUnderTest, draw: Draw) -> None:
    """Twice against once."""
    norm, dim = _plain(part, draw)
    x = draw.normal(4, dim, scale=30.0)
    once, sigma = norm(x), _statistic(part, x)
    slack = 2 * norm.epsilon * max(1.0, float((1 / sigma).max()))
    close(norm(once), once, "norm(norm(x)) and norm(x)", slack * float(once.detach().abs().max()) + 1e-9)


@property_of(
    "norm",
    statement="A mean far larger than the deviation costs no accuracy in float32.",
    formula="|norm_32(3000 + z) − norm_64(3000 + z)| ≤ 2·10⁻³",
    catches="the variance as E[x²] − E[x]²",
    tier="num",
    tolerance="A float32 input of 3000 is exact to 2⁻¹² only; E[x²] − E[x]² loses all digits there.",
    examples=10,
)
def well_conditioned(part: PartUnderTest, draw: Draw) -> None:
    """3000 + N(0, 1) against float64."""
    exact, dim = _plain(part, draw)
    x = (3000 + draw.normal(4, dim)).float()
    single = part.cls(exact.config, dim).eval()
    single.load_state_dict(exact.state_dict())
    close(single.float()(x).double(), exact(x.double()), "float32 and float64 at 3000 + N(0, 1)", 2e-3)
