"""Properties of samplers that take a name of the field: they keep what it means, and nothing else."""

from __future__ import annotations

from typing import Any

import torch

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.sampler.bench import VOCAB, filtered, named, option


@property_of(
    "sampler",
    statement="The nucleus is the smallest set that reaches p: without its least likely token it would not.",
    formula="Σ kept ≥ p, Σ kept − min kept < p, min kept ≥ max dropped",
    catches="off by one in either direction",
    seen="esm#360, fish-speech#1171, C2C#21, reasoning-from-scratch#164",
    tolerance="a cumulative sum of twelve probabilities in float64",
    examples=70,
    excuse=named("top-p"),
)
def nucleus_is_minimal(part: PartUnderTest, draw: Draw) -> None:
    """Mass kept, mass without the least; with equals and without."""
    p = draw.choice("p", [0.5, 0.3, 0.9, 0.99])
    sampler, drawn, ids, _ = filtered(part, draw, **{option(part, "p"): p})
    for logits in (drawn, drawn.round()):
        chance, kept = logits.softmax(-1), sampler(logits, ids) > -torch.inf
        for row in range(3):
            inside, outside = chance[row][kept[row]], chance[row][~kept[row]]
            assert inside.sum() >= p - 1e-12, f"keeps {float(inside.sum()):.6f} < p = {p}"
            assert inside.sum() - inside.min() < p + 1e-12, f"keeps more than needed for p = {p}"
            assert not len(outside) or inside.min() >= outside.max(), "a kept token is less likely than a dropped one"


@property_of(
    "sampler",
    statement="Top-k keeps exactly the k likeliest.",
    formula="|kept| = min(k, V), kept = the largest",
    catches="k − 1 or k + 1",
    tier="bit",
    excuse=named("top-k"),
)
def keeps_exactly_k(part: PartUnderTest, draw: Draw) -> None:
    """Count."""
    k = draw.choice("k", [1, 3, 7, VOCAB, VOCAB + 5])
    _, logits, _, out = filtered(part, draw, **{option(part, "k"): k})
    kept = out > -torch.inf
    assert (kept.sum(-1) == min(k, VOCAB)).all(), f"keeps {kept.sum(-1).tolist()} tokens for k = {k}"
    assert torch.equal(kept, logits >= logits.sort(descending=True).values[:, min(k, VOCAB) - 1 :][:, :1])


@property_of(
    "sampler",
    statement="Min-p keeps exactly the tokens at least p times as likely as the likeliest.",
    formula="kept = {i : qᵢ ≥ p · max q}",
    catches="an absolute threshold",
    tier="bit",
    tolerance="tokens within 1e-9 of the threshold are left out",
    excuse=named("min-p"),
)
def threshold_is_relative(part: PartUnderTest, draw: Draw) -> None:
    """Compare with the definition, away from equality."""
    p = draw.choice("p", [0.05, 0.2, 0.7])
    _, logits, _, out = filtered(part, draw, **{option(part, "p"): p})
    ratio = (logits - logits.amax(-1, keepdim=True)).exp()
    clear = (ratio - p).abs() > 1e-9
    assert torch.equal((out > -torch.inf)[clear], (ratio >= p)[clear]), (
        f"other tokens than those within {p} of the best"
    )


@property_of(
    "sampler",
    statement="Under a temperature T the log-ratio of two tokens is (l_i − l_j)/T; T → 0 takes the likeliest.",
    formula="log qᵢ − log qⱼ = (lᵢ − lⱼ)/T",
    catches="multiplying by T",
    excuse=named("temperature"),
)
def temperature_divides(part: PartUnderTest, draw: Draw) -> None:
    """Differences of log-probabilities."""
    name = option(part, "value", "temperature")
    t = draw.choice("T", [0.5, 1.0, 2.0])
    _, logits, _, out = filtered(part, draw, **{name: t})
    difference = logits - logits[:, :1]
    close(out - out[:, :1], difference / t, "log-ratios and differences/T", 1e-12)


@property_of(
    "sampler",
    statement="However small T is, log-ratios are (l_i − l_j)/T, also where the quotient of another logit overflows.",
    formula="log p_i − log p_j = (l_i − l_j)/T for |l_k|/T beyond the largest float",
    catches="+∞ for the likeliest, and NaN out of ∞ − ∞; a floor under T that only the smallest reach",
    examples=35,
    excuse=named("temperature"),
)
def overflow_is_no_matter(part: PartUnderTest, draw: Draw) -> None:
    """Logits of the order of T, and one far above or below them."""
    t = draw.choice("T", [1e-305, 1e-304])
    sampler, *_ = filtered(part, draw, **{option(part, "value", "temperature"): t})
    far = draw.choice("the last token's logit", [1e5, -1e5])
    logits = draw.normal(3, VOCAB)
    expected = logits[:, :-1].log_softmax(-1)
    scaled = torch.cat([logits[:, :-1] * t, torch.full((3, 1), far, dtype=logits.dtype)], 1)
    chance = sampler(scaled, draw.ids(3, 5, VOCAB)).softmax(-1)
    if far > 0:
        close(chance[:, -1], torch.ones(3, dtype=chance.dtype), "the likeliest token's probability and one")
    else:
        close(chance[:, :-1].log(), expected, "log-ratios and differences/T", 1e-9)


@property_of(
    "sampler",
    statement="At temperature 10⁻⁴ the likeliest token has all the probability.",
    formula="T = 10⁻⁴ ⇒ q_argmax ≥ 1 − 10⁻⁹",
    catches="a floor under T, an overflow",
    examples=8,
    excuse=named("temperature"),
)
def cold_is_greedy(part: PartUnderTest, draw: Draw) -> None:
    """Almost zero."""
    sampler, _, ids, _ = filtered(part, draw, **{option(part, "value", "temperature"): 1e-4})
    logits = torch.arange(VOCAB, dtype=torch.float64).expand(3, -1)[:, draw.permutation(VOCAB)]
    chance = sampler(logits, ids).softmax(-1)
    assert (chance.gather(1, logits.argmax(-1, keepdim=True)) >= 1 - 1e-9).all(), "not all on the likeliest"


@property_of(
    "sampler",
    statement="A repetition penalty divides positive logits of seen tokens and multiplies negative ones, once each.",
    formula="seen: l/θ where l > 0, else l·θ (lower for θ > 1, whatever the sign); unseen: l",
    catches="dividing negative logits, one penalty per occurrence",
    excuse=named("repetition-penalty"),
)
def penalty_lowers_once(part: PartUnderTest, draw: Draw) -> None:
    """Signs, and histories with repeats."""
    sampler, logits, ids, out = filtered(part, draw, **{option(part, "penalty"): 1.3})
    seen = torch.zeros(3, VOCAB, dtype=torch.bool).scatter(1, ids, True)
    assert (out[seen] < logits[seen]).all(), "a seen token was raised or left alone"
    wanted = torch.where(logits > 0, logits / 1.3, logits * 1.3)
    close(out[seen], wanted[seen], "seen tokens, and logits divided or multiplied by the penalty", 1e-12)
    assert torch.equal(out[~seen], logits[~seen]), "an unseen token was changed"
    assert torch.equal(sampler(logits, torch.cat([ids, ids], 1)), out), "a token seen twice is punished twice"


@property_of(
    "sampler",
    statement="Greedy leaves the likeliest token and nothing else.",
    formula="kept = {argmax l}",
    catches="the wrong axis",
    tier="bit",
    examples=8,
    excuse=named("greedy"),
)
def only_the_likeliest(part: PartUnderTest, draw: Draw) -> None:
    """One token, the right one."""
    _, logits, _, out = filtered(part, draw)
    assert ((out > -torch.inf).sum(-1) == 1).all() and torch.equal(out.argmax(-1), logits.argmax(-1)), (
        "not the argmax"
    )


@property_of(
    "sampler",
    statement="With its option at the neutral value the filter changes nothing, to the bit.",
    formula="f(l) = l at T = 1, p = 1 (min-p: 0), k = V, θ = 1",
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
    _, logits, _, out = filtered(part, draw, **neutral[law])
    assert torch.equal(out, logits), "the neutral setting changes logits"


@property_of(
    "sampler",
    statement="Among equals at the edge top-k keeps k at least, and none that is less likely than one it drops.",
    formula="|kept| ≥ k, min kept ≥ max dropped, |{l > min kept}| < k",
    catches="a threshold that drops all of the equals, so that fewer than k are left",
    tier="bit",
    examples=15,
    excuse=named("top-k"),
)
def equals_at_the_edge(part: PartUnderTest, draw: Draw) -> None:
    """Whole numbers for logits, all of them equal now and then."""
    k = draw.choice("k", [1, 3, 7])
    sampler, logits, ids, _ = filtered(part, draw, **{option(part, "k"): k})
    logits = logits.round() * draw.choice("spread", [1.0, 0.0])
    kept = sampler(logits, ids) > -torch.inf
    for row in range(len(logits)):
        inside, outside = logits[row][kept[row]], logits[row][~kept[row]]
        assert len(inside) >= k, f"keeps {len(inside)} of equals for k = {k}"
        assert int((inside > inside.min()).sum()) < k, f"keeps more than the equals of the last of {k}"
        assert not len(outside) or inside.min() >= outside.max(), "a kept token is less likely than a dropped one"
