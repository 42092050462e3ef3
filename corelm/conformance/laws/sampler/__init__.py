"""Properties of samplers: filters of the next token's logits."""

from __future__ import annotations

import torch

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.sampler import formula
from corelm.conformance.laws.sampler.bench import VOCAB, filtered
from corelm.errors import UserError

MINIMUM = 5
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["formula"]


@property_of(
    "sampler",
    statement="The result is a distribution: softmax of it sums to one, at least one token is left, shape and type stay.",
    formula="Σ softmax(f(l)) = 1, f(l) ∈ [−∞, ∞)ⱽ, ∃ finite",
    catches="everything filtered away, probabilities instead of logits",
    tier="f64",
    examples=28,
)
def a_distribution(part: PartUnderTest, draw: Draw) -> None:
    """Sum, support, shape."""
    subject = part.bench.subject(part, draw)
    inputs, dtype = part.bench.inputs(subject, draw), draw.choice("dtype", [torch.float64, torch.float32])
    logits = inputs["logits"].to(dtype)
    if draw.choice("ties", [False, True]):
        logits = logits.round()
    out = subject.part(logits, inputs["ids"])
    assert out.shape == logits.shape and out.dtype == logits.dtype, f"{tuple(out.shape)} {out.dtype}"
    assert not out.isnan().any() and (out < torch.inf).all(), "a logit is NaN or +inf"
    assert out.isfinite().any(-1).all(), "no token is left"
    close(
        out.softmax(-1).sum(-1),
        torch.ones(3, dtype=out.dtype),
        "the sum and one",
        1e-12 if dtype == torch.float64 else 1e-6,
    )


@property_of(
    "sampler",
    statement="A row's result depends on that row only.",
    formula="f(l)ᵢ = f(lᵢ)",
    catches="a threshold taken over the batch, one row's history for all (shared generators)",
    examples=38,
)
def rows_are_independent(part: PartUnderTest, draw: Draw) -> None:
    """Permute and slice."""
    sampler, logits, ids, out = filtered(part, draw)
    order = draw.permutation(3)
    close(sampler(logits[order], ids[order]), out[order], "permuted rows", 1e-14)
    close(sampler(logits[1:2], ids[1:2]), out[1:2], "one row alone", 1e-14)


@property_of(
    "sampler",
    statement="Renaming the tokens renames the result.",
    formula="f(π l) = π f(l)",
    catches="a mask that is applied in sorted order",
)
def vocabulary_can_be_permuted(part: PartUnderTest, draw: Draw) -> None:
    """Permute columns and ids."""
    sampler, logits, ids, out = filtered(part, draw)
    order = draw.permutation(VOCAB)
    place = order.argsort()
    close(sampler(logits[:, order], place[ids]), out[:, order], "permuted vocabulary", 1e-14)


@property_of(
    "sampler",
    statement="Adding a constant to all logits changes no probability.",
    formula="softmax f(l + c) = softmax f(l)",
    catches="thresholds on raw logits",
)
def shift_invariant(part: PartUnderTest, draw: Draw) -> None:
    """Shift by 5 and −50."""
    if getattr(part.cls, "law", part.name) == "repetition-penalty":
        raise NotApplicable("a repetition penalty looks at the sign of a logit by definition")
    sampler, logits, ids, out = filtered(part, draw)
    for shift in (5.0, -50.0):
        close(sampler(logits + shift, ids).softmax(-1), out.softmax(-1), f"logits + {shift}", 1e-12)


@property_of(
    "sampler",
    statement="−inf stays −inf: such a token has probability exactly zero.",
    formula="lᵢ = −∞ ⇒ f(l)ᵢ = −∞",
    catches="a floor, a multiplication by −0",
    tier="bit",
)
def forbidden_stays_forbidden(part: PartUnderTest, draw: Draw) -> None:
    """Forbid some tokens, seen ones among them."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    gone = torch.rand(3, VOCAB, generator=draw.generator()) < 0.4
    gone[:, 0] = False
    out = subject.part(inputs["logits"].masked_fill(gone, -torch.inf), inputs["ids"])
    assert (out[gone] == -torch.inf).all(), "a forbidden token came back"
    assert out.isfinite().any(-1).all() and not out.isnan().any(), "nothing is left, or a logit is NaN"


@property_of(
    "sampler",
    statement="NaN logits raise an error that the user can read.",
    formula="∃ lᵢ = NaN ⇒ f raises",
    catches="a sample from garbage",
    tier="io",
    examples=5,
)
def nan_is_refused(part: PartUnderTest, draw: Draw) -> None:
    """One NaN in the second row."""
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    inputs["logits"][1, 3] = torch.nan
    try:
        part.bench.call(subject, inputs)
    except UserError:
        return
    raise AssertionError("NaN went through")


@property_of(
    "sampler",
    statement="A filter leaves the logits that it keeps as they are.",
    formula="f(l)ᵢ ∈ {lᵢ, −∞}, f(l)_argmax = l_argmax",
    catches="renormalised or rescaled logits, so that the order of filters matters where it shouldn't",
    tier="bit",
    excuse=lambda part: (
        None
        if getattr(part.cls, "law", part.name) not in ("temperature", "repetition-penalty")
        else "it is no filter"
    ),
)
def kept_logits_are_untouched(part: PartUnderTest, draw: Draw) -> None:
    """Kept ones equal the input, dropped ones are −inf."""
    _, logits, _, out = filtered(part, draw)
    kept = out > -torch.inf
    assert torch.equal(out[kept], logits[kept]), "a kept logit was changed"
    assert bool((out.argmax(-1) == logits.argmax(-1)).all()), "the likeliest token was dropped"
