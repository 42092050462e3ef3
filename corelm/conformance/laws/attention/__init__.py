"""Properties of attention: everything in which one token influences another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from corelm.conformance import residual
from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.harness import Everything, QueryFactor, ScoreBias, Turning, causal_rules, layer_step
from corelm.conformance.laws.attention import formula, state, whole
from corelm.conformance.laws.attention.bench import lacks, needs, ready, weighs
from corelm.kinds.component import ComponentConfig

MINIMUM = 10
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["formula", "residual", "state", "whole"]


@property_of(
    "attention",
    statement="Whatever comes after token t leaves the outputs up to t as they are, to the bit.",
    formula="x_s changed for s > t ⇒ y_0 … y_t the same",
    catches="a diagonal off by one, an additive mask of −1e4, time and heads mixed up by a reshape",
    tier="bit",
    examples=32,
)
def causal(part: PartUnderTest, draw: Draw) -> None:
    """Replace the future."""
    attention, dim, schemes = ready(part, draw)
    batch, time = draw.integer("batch", 1, 3), draw.integer("time", 2, 9)
    t = draw.integer("t", 0, time - 2)
    x = draw.normal(batch, time, dim)
    other = x.clone()
    other[:, t + 1 :] = draw.normal(batch, time - t - 1, dim, scale=draw.choice("future", [1.0, 1e2, 1e4]))
    before, after = (attention(z, layer_step(batch, time, schemes=schemes))[:, : t + 1] for z in (x, other))
    assert before.isfinite().all(), "the output is not finite"
    assert torch.equal(before, after), f"the future changed outputs up to t={t} by {_most(before, after):.3g}"


def _most(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _influence(attention: nn.Module, x: Tensor, step: Any) -> Tensor:
    """``(time, time)``: how much input s moves output t, summed over rows and features."""
    x = x.detach().requires_grad_()
    y = attention(x, step())
    rows = []
    for t in range(x.shape[1]):
        weights = torch.linspace(0.5, 1.5, x.shape[2], dtype=x.dtype)
        (gradient,) = torch.autograd.grad((y[:, t] * weights).sum(), x, retain_graph=True)
        rows.append(gradient.abs().sum((0, 2)))
    return torch.stack(rows)


@property_of(
    "attention",
    statement="Output t depends on every input up to t, and on none after it.",
    formula="∂y_t/∂x_s ≠ 0 ⇔ s ≤ t",
    catches="strict causality (the token itself left out), a constant, a statistic over time",
    tier="bit",
    examples=15,
)
def looks_at_all_of_the_past(part: PartUnderTest, draw: Draw) -> None:
    """The support of the Jacobian is the triangle."""
    attention, dim, schemes = ready(part, draw, sharp=False)
    time = draw.integer("time", 2, 7)
    found = _influence(attention, draw.normal(2, time, dim), lambda: layer_step(2, time, schemes=schemes)) > 0
    expected = torch.ones(time, time, dtype=torch.bool).tril()
    assert torch.equal(found, expected), f"output depends on input as\n{found.int()}\nrather than on all of the past"


@property_of(
    "attention",
    statement="Permuting or slicing the batch permutes or slices the output.",
    formula="f(PX) = P f(X) for rows P",
    catches="statistics across the batch, rows mixed up by a reshape",
)
def rows_are_independent(part: PartUnderTest, draw: Draw) -> None:
    """Shuffle rows."""
    attention, dim, schemes = ready(part, draw)
    time = draw.integer("time", 1, 6)
    x, rows = draw.normal(3, time, dim), draw.permutation(3)
    y = attention(x, layer_step(3, time, schemes=schemes))
    close(attention(x[rows], layer_step(3, time, schemes=schemes)), y[rows], "permuted rows")
    close(attention(x[1:2], layer_step(1, time, schemes=schemes)), y[1:2], "one row")


@property_of(
    "attention",
    statement="Padding on either side, whatever it contains, leaves real tokens as they are without it; it is finite.",
    formula="f(pad ‖ x)[real] = f(x), all finite",
    catches="a padding mask that is ignored, positions that count padding, 0/0 at padded queries (pytorch#103749)",
    seen="pytorch#103749, pytorch#110213, transformers#38690",
    examples=30,
)
def padding_is_invisible(part: PartUnderTest, draw: Draw) -> None:
    """Pad with what would drown the rest."""
    attention, dim, schemes = ready(part, draw)
    time, pads = draw.integer("time", 1, 6), draw.integer("pads", 1, 3)
    left = draw.choice("side", ["left", "right"]) == "left"
    x, padding = draw.normal(2, time, dim), draw.normal(2, pads, dim, scale=draw.choice("padding", [1e2, 1e4]))
    real, hidden = torch.ones(2, time, dtype=torch.bool), torch.zeros(2, pads, dtype=torch.bool)
    padded = torch.cat([padding, x] if left else [x, padding], 1).requires_grad_()
    valid = torch.cat([hidden, real] if left else [real, hidden], 1)
    y = attention(padded, layer_step(2, time + pads, schemes=schemes, valid=valid))
    assert y.isfinite().all(), "the output at a padded token is not finite"
    close(y[valid].view(2, time, dim), attention(x, layer_step(2, time, schemes=schemes)), "padded and not")
    y.sum().backward()
    assert padded.grad is not None and padded.grad.isfinite().all(), "a gradient is not finite next to padding"


@property_of(
    "attention",
    statement="Documents packed into one row give what each gives alone.",
    formula="f(d₁ ‖ d₂) = f(d₁) ‖ f(d₂)",
    catches="positions restart but attention looks across (nanoVLM#204), state carried into the next document",
    seen="nanoVLM#204, profam#495",
    examples=25,
)
def packed_equals_separate(part: PartUnderTest, draw: Draw) -> None:
    """Two or three documents in a row."""
    attention, dim, schemes = ready(part, draw)
    lengths = [draw.integer("length", 1, 4) for _ in range(draw.integer("documents", 2, 3))]
    x = draw.normal(2, sum(lengths), dim)
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).expand(2, -1)
    packed = attention(x, layer_step(2, sum(lengths), schemes=schemes, documents=documents))
    alone = [attention(z, layer_step(2, z.shape[1], schemes=schemes)) for z in x.split(lengths, 1)]
    close(packed, torch.cat(alone, 1), "packed and separate")


@property_of(
    "attention",
    statement="Under a window of w, output t depends on exactly the inputs t − w < s ≤ t.",
    formula="∂y_t/∂x_s ≠ 0 ⇔ t − w < s ≤ t",
    catches="a window that is off by one or ignored",
    tier="bit",
    examples=12,
)
def window_is_exact(part: PartUnderTest, draw: Draw) -> None:
    """The support of the Jacobian is the band."""
    attention, dim, schemes = ready(part, draw, sharp=False)
    needs(part, attention, "mask")
    time, window = draw.integer("time", 3, 7), draw.integer("window", 1, 3)
    x = draw.normal(1, time, dim)
    found = _influence(attention, x, lambda: layer_step(1, time, schemes=schemes, rules=causal_rules(window))) > 0
    ones = torch.ones(time, time, dtype=torch.bool)
    assert torch.equal(found, ones.tril() & ~ones.tril(-window)), (
        f"window {window}, but the support is\n{found.int()}"
    )


@property_of(
    "attention",
    statement="Without positions and without a causal mask, permuting tokens permutes outputs.",
    formula="f(Px) = P f(x) without positions and mask",
    catches="a hidden dependence on position, causality that no mask asked for",
)
def permutation_equivariant(part: PartUnderTest, draw: Draw) -> None:
    """Shuffle tokens under a mask that allows everything."""
    attention, dim, _ = ready(part, draw)
    needs(part, attention, "mask")
    weighs(part, attention)
    time = draw.integer("time", 2, 7)
    x, order = draw.normal(2, time, dim), draw.permutation(time)
    y = attention(x, layer_step(2, time, rules=[Everything(ComponentConfig())]))
    close(attention(x[:, order], layer_step(2, time, rules=[Everything(ComponentConfig())])), y[:, order], "permuted")


@property_of(
    "attention",
    statement="A sequence of one token repeated gives one output repeated: weights sum to one.",
    formula="x_0 = … = x_T ⇒ y_0 = … = y_T",
    catches="a missing normalisation, a scale on weights, dropout in evaluation",
)
def weights_sum_to_one(part: PartUnderTest, draw: Draw) -> None:
    """Equal values mix to themselves."""
    attention, dim, schemes = ready(part, draw)
    weighs(part, attention)
    lacks(part, attention, "sink")
    time = draw.integer("time", 2, 7)
    x = draw.normal(2, 1, dim).expand(2, time, dim)
    y = attention(x, layer_step(2, time, schemes=schemes))
    close(y, y[:, :1].expand_as(y), "outputs of equal tokens")


@property_of(
    "attention",
    statement="With queries scaled to zero, output t is the mean of what each of the inputs 0 … t gives alone.",
    formula="q = 0 ⇒ y_t = mean(f(x_0), …, f(x_t))",
    catches="any offset of the mask, unnormalised weights, a query hook that is never called",
)
def no_query_gives_the_mean(part: PartUnderTest, draw: Draw) -> None:
    """Uniform weights."""
    attention, dim, _ = ready(part, draw)
    needs(part, attention, "query")
    weighs(part, attention)
    lacks(part, attention, "sink")
    lacks(part, attention, "gate")
    time = draw.integer("time", 2, 7)
    x = draw.normal(2, time, dim)
    y = attention(x, layer_step(2, time, schemes=[QueryFactor(ComponentConfig(), attention.geometry)]))
    alone = attention(x.reshape(2 * time, 1, dim), layer_step(2 * time, 1)).view(2, time, dim)
    means = alone.cumsum(1) / torch.arange(1, time + 1, dtype=x.dtype)[:, None]
    close(y, means, "with zero queries, and the mean of the past")


@property_of(
    "attention",
    statement="A rotation reaches queries and keys alike: shifting all positions changes nothing, turning changes much.",
    formula="f at positions p + 5 = f at p ≠ f without rotation",
    catches="a rotation of queries only, or one that is never called",
    tolerance="A change of 10⁻⁹ is far above rounding in float64.",
)
def rotation_is_used(part: PartUnderTest, draw: Draw) -> None:
    """Shift all positions, then leave the rotation out."""
    attention, dim, _ = ready(part, draw, sharp=False)
    needs(part, attention, "rotation")
    assert attention.geometry is not None, "it offers rotation, but has no geometry for position schemes"
    if attention.geometry.head_dim < 2:
        draw.reject()
    x, schemes = draw.normal(2, 6, dim), [Turning(ComponentConfig(), attention.geometry)]
    y = attention(x, layer_step(2, 6, schemes=schemes))
    if "absolute" not in part.cls.offers(attention.config):
        close(attention(x, layer_step(2, 6, schemes=schemes, shift=5)), y, "positions shifted by 5")
    assert _most(y, attention(x, layer_step(2, 6))) > 1e-9, "turning queries and keys changes nothing"


@property_of(
    "attention",
    statement="A bias on scores is added before the softmax: constant per query it changes nothing, −10⁹ hides a key; in "
    "whatever type activations are.",
    formula="bias(t, s) = b_t ⇒ nothing changes; bias(t, 0) = −10⁹ ⇒ y_t doesn't depend on x_0",
    catches="a bias after the softmax, one that is never asked for, heads or axes mixed up, float32 beside bfloat16",
    tolerance="Biases are float32 by contract, so that equal ones cancel to 10⁻⁶.",
)
def score_bias_is_used(part: PartUnderTest, draw: Draw) -> None:
    """Constant rows, then one hidden column."""
    attention, dim, _ = ready(part, draw)
    needs(part, attention, "scores")
    time = draw.integer("time", 3, 6)
    x = draw.normal(2, time, dim)
    if "sink" in part.cls.offers(attention.config):  # its score stays as it is: keys far above it, and far below
        above, below = (
            attention(x, layer_step(2, time, schemes=[ScoreBias(attention.geometry, row=row)])) for row in (1e4, -1e4)
        )
        assert _most(above, below) > 1e-9, "equal biases of all keys change nothing, against a sink that has none"
    else:
        biased = attention(x, layer_step(2, time, schemes=[ScoreBias(attention.geometry, row=0.5)]))
        close(biased, attention(x, layer_step(2, time)), "with equal biases", 1e-6)
    hidden = ScoreBias(attention.geometry, column=-1e9, at=0)
    other = x.clone()
    other[:, 0] = draw.normal(2, dim)
    y, z = (attention(v, layer_step(2, time, schemes=[hidden]))[:, 1:] for v in (x, other))
    close(y, z, "with the first key hidden by the bias")
    length, narrow = draw.choice("tokens", [1, time]), attention.to(torch.bfloat16)
    short = narrow(x[:, :length].bfloat16(), layer_step(2, length, schemes=[ScoreBias(attention.geometry, row=0.5)]))
    assert short.dtype == torch.bfloat16 and bool(short.isfinite().all()), (
        f"of {length} tokens in bfloat16 {short.dtype}"
    )


@property_of(
    "attention",
    statement="Inputs a thousand times the usual give finite outputs and gradients.",
    formula="|x| ~ 10³ ⇒ y, ∂y/∂x finite in float32",
    catches="exp() that overflows",
)
def large_inputs_are_finite(part: PartUnderTest, draw: Draw) -> None:
    """In float32, where exp overflows at 88."""
    subject = part.bench.subject(part, draw, dtype=torch.float32)
    time = draw.integer("time", 1, 6)
    x = draw.normal(2, time, subject.context.dim, scale=1e3, dtype=torch.float32).requires_grad_()
    y = subject.part(x, layer_step(2, time))
    assert y.isfinite().all(), "the output is not finite"
    y.mean().backward()
    assert x.grad is not None and x.grad.isfinite().all(), "the gradient is not finite"
