"""Properties of samplers: filters of the next token's logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.errors import UserError

VOCAB = 12


class SamplerBench(Bench):
    """A few rows of logits without ties."""

    kind = "sampler"

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """Logits from flat to peaked, and the tokens so far."""
        scale = draw.choice("logits ×", [1.0, 0.1, 8.0])
        return {"logits": draw.normal(3, VOCAB, scale=scale), "ids": draw.ids(3, 5, VOCAB)}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Filter."""
        return subject.part(inputs["logits"], inputs["ids"])


def _filtered(part: PartUnderTest, draw: Draw, **pins: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
    subject = part.bench.subject(part, draw, **pins)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["logits"], inputs["ids"], part.bench.call(subject, inputs)


def _option(part: PartUnderTest, *names: str) -> str:
    """The one option of these names that the part has."""
    found = [name for name in names if name in part.cls.Config.model_fields]
    if not found:
        raise NotApplicable(f"it has no option {' or '.join(names)}")
    return found[0]


def _named(*names: str) -> Any:
    """Says nothing about parts whose name (or declared ``law``) is not one of these."""

    def excuse(part: PartUnderTest) -> str | None:
        law = getattr(part.cls, "law", part.name)
        return None if law in names else f"it is {law!r}, not {' or '.join(names)}"

    return excuse


@property_of(
    "sampler",
    statement="The result is a distribution: softmax of it sums to one, at least one token is left, shape and type stay.",
    catches="everything filtered away, probabilities instead of logits",
    tier="f64",
)
def a_distribution(part: PartUnderTest, draw: Draw) -> None:
    """Sum, support, shape."""
    _, logits, _, out = _filtered(part, draw)
    assert out.shape == logits.shape and out.dtype == logits.dtype, f"{tuple(out.shape)} {out.dtype}"
    assert not out.isnan().any() and (out < torch.inf).all(), "a logit is NaN or +inf"
    assert out.isfinite().any(-1).all(), "no token is left"
    close(out.softmax(-1).sum(-1), torch.ones(3, dtype=out.dtype), "the sum and one", 1e-12)


@property_of(
    "sampler",
    statement="A row's result depends on that row only.",
    catches="a threshold taken over the batch, one row's history for all (shared generators)",
)
def rows_are_independent(part: PartUnderTest, draw: Draw) -> None:
    """Permute and slice."""
    sampler, logits, ids, out = _filtered(part, draw)
    order = draw.permutation(3)
    close(sampler(logits[order], ids[order]), out[order], "permuted rows", 1e-14)
    close(sampler(logits[1:2], ids[1:2]), out[1:2], "one row alone", 1e-14)


@property_of(
    "sampler",
    statement="Renaming the tokens renames the result.",
    catches="a mask that is applied in sorted order",
)
def vocabulary_can_be_permuted(part: PartUnderTest, draw: Draw) -> None:
    """Permute columns and ids."""
    sampler, logits, ids, out = _filtered(part, draw)
    order = draw.permutation(VOCAB)
    place = order.argsort()
    close(sampler(logits[:, order], place[ids]), out[:, order], "permuted vocabulary", 1e-14)


@property_of(
    "sampler",
    statement="Adding a constant to all logits changes no probability.",
    catches="thresholds on raw logits",
)
def shift_invariant(part: PartUnderTest, draw: Draw) -> None:
    """Shift by 5 and −50."""
    if getattr(part.cls, "law", part.name) == "repetition-penalty":
        raise NotApplicable("a repetition penalty looks at the sign of a logit by definition")
    sampler, logits, ids, out = _filtered(part, draw)
    for shift in (5.0, -50.0):
        close(sampler(logits + shift, ids).softmax(-1), out.softmax(-1), f"logits + {shift}", 1e-12)


@property_of(
    "sampler",
    statement="−inf stays −inf: such a token has probability exactly zero.",
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
    _, logits, _, out = _filtered(part, draw)
    kept = out > -torch.inf
    assert torch.equal(out[kept], logits[kept]), "a kept logit was changed"
    assert bool((out.argmax(-1) == logits.argmax(-1)).all()), "the likeliest token was dropped"


@property_of(
    "sampler",
    statement="The nucleus is the smallest set that reaches p: without its least likely token it would not.",
    catches="off by one in either direction (esm#360, fish-speech#1171)",
    examples=40,
    excuse=_named("top-p"),
)
def nucleus_is_minimal(part: PartUnderTest, draw: Draw) -> None:
    """Mass kept, mass without the least."""
    p = draw.choice("p", [0.3, 0.5, 0.9, 0.99])
    _, logits, _, out = _filtered(part, draw, **{_option(part, "p"): p})
    chance, kept = logits.softmax(-1), out > -torch.inf
    for row in range(3):
        inside, outside = chance[row][kept[row]], chance[row][~kept[row]]
        assert inside.sum() >= p - 1e-12, f"keeps {float(inside.sum()):.6f} < p = {p}"
        assert inside.sum() - inside.min() < p + 1e-12, f"keeps more than needed for p = {p}"
        assert not len(outside) or inside.min() >= outside.max(), "a kept token is less likely than a dropped one"


@property_of(
    "sampler",
    statement="Top-k keeps exactly the k likeliest.",
    catches="k − 1 or k + 1",
    tier="bit",
    excuse=_named("top-k"),
)
def keeps_exactly_k(part: PartUnderTest, draw: Draw) -> None:
    """Count."""
    k = draw.choice("k", [1, 3, 7, VOCAB, VOCAB + 5])
    _, logits, _, out = _filtered(part, draw, **{_option(part, "k"): k})
    kept = out > -torch.inf
    assert (kept.sum(-1) == min(k, VOCAB)).all(), f"keeps {kept.sum(-1).tolist()} tokens for k = {k}"
    assert torch.equal(kept, logits >= logits.sort(descending=True).values[:, min(k, VOCAB) - 1 :][:, :1])


@property_of(
    "sampler",
    statement="Min-p keeps exactly the tokens at least p times as likely as the likeliest.",
    catches="an absolute threshold",
    tier="bit",
    excuse=_named("min-p"),
)
def threshold_is_relative(part: PartUnderTest, draw: Draw) -> None:
    """Compare with the definition, away from equality."""
    p = draw.choice("p", [0.05, 0.2, 0.7])
    _, logits, _, out = _filtered(part, draw, **{_option(part, "p"): p})
    ratio = (logits - logits.amax(-1, keepdim=True)).exp()
    clear = (ratio - p).abs() > 1e-9
    assert torch.equal((out > -torch.inf)[clear], (ratio >= p)[clear]), (
        f"other tokens than those within {p} of the best"
    )


@property_of(
    "sampler",
    statement="Under a temperature T the log-ratio of two tokens is (l_i − l_j)/T; T → 0 takes the likeliest.",
    catches="multiplying by T",
    excuse=_named("temperature"),
)
def temperature_divides(part: PartUnderTest, draw: Draw) -> None:
    """Differences of log-probabilities."""
    name = _option(part, "value", "temperature")
    t = draw.choice("T", [0.5, 1.0, 2.0])
    _, logits, _, out = _filtered(part, draw, **{name: t})
    difference = logits - logits[:, :1]
    close(out - out[:, :1], difference / t, "log-ratios and differences/T", 1e-12)


@property_of(
    "sampler",
    statement="At temperature 10⁻⁴ the likeliest token has all the probability.",
    catches="a floor under T, an overflow",
    examples=8,
    excuse=_named("temperature"),
)
def cold_is_greedy(part: PartUnderTest, draw: Draw) -> None:
    """Almost zero."""
    sampler, _, ids, _ = _filtered(part, draw, **{_option(part, "value", "temperature"): 1e-4})
    logits = torch.arange(VOCAB, dtype=torch.float64).expand(3, -1)[:, draw.permutation(VOCAB)]
    chance = sampler(logits, ids).softmax(-1)
    assert (chance.gather(1, logits.argmax(-1, keepdim=True)) >= 1 - 1e-9).all(), "not all on the likeliest"


@property_of(
    "sampler",
    statement="A repetition penalty above one raises no seen token, whatever its sign; seen twice counts once.",
    catches="dividing negative logits, one penalty per occurrence",
    excuse=_named("repetition-penalty"),
)
def penalty_lowers_once(part: PartUnderTest, draw: Draw) -> None:
    """Signs, and histories with repeats."""
    sampler, logits, ids, out = _filtered(part, draw, **{_option(part, "penalty"): 1.3})
    seen = torch.zeros(3, VOCAB, dtype=torch.bool).scatter(1, ids, True)
    assert (out[seen] < logits[seen]).all(), "a seen token was raised or left alone"
    assert torch.equal(out[~seen], logits[~seen]), "an unseen token was changed"
    assert torch.equal(sampler(logits, torch.cat([ids, ids], 1)), out), "a token seen twice is punished twice"


@property_of(
    "sampler",
    statement="Greedy leaves the likeliest token and nothing else.",
    catches="the wrong axis",
    tier="bit",
    examples=8,
    excuse=_named("greedy"),
)
def only_the_likeliest(part: PartUnderTest, draw: Draw) -> None:
    """One token, the right one."""
    _, logits, _, out = _filtered(part, draw)
    assert ((out > -torch.inf).sum(-1) == 1).all() and torch.equal(out.argmax(-1), logits.argmax(-1)), (
        "not the argmax"
    )


@property_of(
    "sampler",
    statement="With its option at the neutral value the filter changes nothing, to the bit.",
    catches="silent smoothing",
    tier="bit",
    examples=8,
)
def neutral_is_identity(part: PartUnderTest, draw: Draw) -> None:
    """T = 1, p = 1 (min-p: 0), k = vocabulary, penalty 1."""
    law = getattr(part.cls, "law", part.name)
    neutral: dict[str, dict[str, Any]] = {
        "temperature": {"value": 1.0, "temperature": 1.0},
        "top-p": {"p": 1.0},
        "top-k": {"k": VOCAB},
        "min-p": {"p": 0.0},
        "repetition-penalty": {"penalty": 1.0},
    }
    if law not in neutral:
        raise NotApplicable("it has no neutral setting")
    _, logits, _, out = _filtered(part, draw, **neutral[law])
    assert torch.equal(out, logits), "the neutral setting changes logits"
