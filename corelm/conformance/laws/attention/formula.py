"""The definition of softmax attention, one query at a time, and the property that holds every kernel to it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.harness import Everything, ScoreBias, causal_rules, layer_step
from corelm.conformance.laws.attention.bench import needs, ready
from corelm.kinds.attention import Heads
from corelm.kinds.carriers import LayerStep
from corelm.kinds.component import ComponentConfig
from corelm.kinds.parameters import declared


def definition(heads: Heads, step: LayerStep) -> Tensor:
    """Mix the values of a call without state, ``(batch, heads, time, value_dim)``.

    A query h, t mixes Σ wₛ vₛ over the keys s that the mask allows, wₛ = exp(cₛ) / (Σ exp(cᵤ) + exp(sink)), with the score
    cₛ = softcap · tanh(scale · q·kₛ / softcap) + bias. Where nothing is allowed, it mixes zero.
    """
    batch, count, time, _ = heads.q.shape
    group = count // heads.k.shape[1]
    index = step.step.index
    allowed, bias = step.mask.dense(index, index), step.position.scores(index, index)
    mixed = heads.q.new_zeros(batch, count, time, heads.v.shape[-1])
    for row, head, t in torch.cartesian_prod(*(torch.arange(n) for n in (batch, count, time))).tolist():
        seen = allowed[row % len(allowed), 0, t].nonzero().squeeze(1)
        if not len(seen):
            continue
        scores = heads.scale * (heads.k[row, head // group, seen] @ heads.q[row, head, t])
        if heads.softcap is not None:
            scores = heads.softcap * torch.tanh(scores / heads.softcap)
        if bias is not None:
            scores = scores + bias[row % len(bias), head, t, seen]
        nothing = scores.new_zeros(0) if heads.sinks is None else heads.sinks[head, None]
        total = torch.cat((scores, nothing)).logsumexp(0)
        mixed[row, head, t] = (scores - total).exp() @ heads.v[row, head // group, seen]
    return mixed


@property_of(
    "attention",
    statement="Softmax attention is its definition: scores scaled, capped, biased and masked; softmax, sink included.",
    formula="y = Σ wₛ vₛ, w = exp(c) / (Σ exp(c) + exp(sink)), c = cap · tanh(scale · q·k / cap) + bias",
    catches="another scale, a cap after the bias, a sink that is left out, heads that read another group's keys",
    tolerance="Both are float64; scores of some hundreds lose two or three digits in exp.",
    examples=49,
)
def equals_the_definition(part: PartUnderTest, draw: Draw) -> None:
    """Compare with the definition, with gradients and without, for these may take different kernels."""
    attention, dim, schemes = ready(part, draw)
    needs(part, attention, "softmax")
    batch, time = draw.integer("batch", 1, 2), draw.integer("time", 1, 8)
    facts: dict[str, Any] = {"schemes": schemes}
    if draw.choice("biased", [False, True]):
        facts["schemes"] = [*schemes, ScoreBias(attention.geometry, row=0.3, column=-1.5, at=1)]
    rules = {"causal": causal_rules(), "window": causal_rules(2), "all": [Everything(ComponentConfig())]}
    facts["rules"] = rules[draw.choice("mask", list(rules))]
    if draw.choice("padding", [False, True]):
        facts["valid"] = torch.arange(time).expand(batch, -1) >= min(2, time - 1)
    if draw.choice("documents", [False, True]):
        facts["documents"] = (torch.arange(time) // 3).expand(batch, -1)
    x = draw.normal(batch, time, dim)
    with torch.no_grad():
        step = layer_step(batch, time, **facts)
        expected = attention.finish(definition(attention.project(x, step), step), x)
        close(attention(x, layer_step(batch, time, **facts)), expected, "without gradients, and by definition", 1e-9)
    found = attention(x.requires_grad_(), layer_step(batch, time, **facts))
    close(found, expected, "with gradients, and by definition", 1e-9)


def _spread(values: Tensor, low: float, high: float) -> float:
    """How far the share of values up to any value is from an even spread between two bounds."""
    even = ((values.sort().values - low) / (high - low)).clamp(0, 1)
    place = torch.arange(len(values) + 1, dtype=values.dtype) / len(values)
    return float(torch.stack([(even - place[1:]).abs(), (even - place[:-1]).abs()]).max())


@property_of(
    "attention",
    statement="Mixers of a name whose decay is exp(−rate · softplus(step)) begin as that name says: with rates evenly in "
    "[1, 16], and steps evenly in the logarithm of [0.001, 0.1].",
    formula="exp(A) ~ U(1, 16), ln softplus(b) ~ U(ln 0.001, ln 0.1) over the heads",
    catches="heads that all remember alike, biases of one for all, steps that are spread evenly where their logarithm is meant",
    tolerance="64 heads: an even spread leaves 1/64 of them, a good sequence twice as much; drawn ones 0.17 in 95 of 100.",
    tier="stat",
    examples=3,
)
def memories_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """Of Mamba-2 (arXiv:2405.21060) and Gated DeltaNet (arXiv:2412.06464), by their authors' code."""
    if getattr(part.cls, "formula", part.name) not in ("mamba2", "gated-delta"):
        raise NotApplicable("its name promises no decays")
    sizes = {"head_dim": 1, "key_heads": None, "key_dim": 1, "value_dim": 1, "least_step": 0.0, "most_step": None}
    subject = part.bench.subject(part, draw, heads=64, **sizes)
    given = {
        info.role: torch.tensor(info.constant, dtype=torch.float64)
        for _, _, info in declared(subject.part)
        if isinstance(info.constant, tuple)
    }
    assert given.keys() == {"vector", "bias"}, f"of its own values begin {sorted(given)}; meant are rates and steps"
    rates, steps = given["vector"].exp(), torch.nn.functional.softplus(given["bias"]).log()
    found = {"rates": _spread(rates, 1.0, 16.0), "steps": _spread(steps, math.log(1e-3), math.log(0.1))}
    for name, apart in found.items():
        assert apart < 0.2, f"the spread of the {name} over 64 heads is {apart:.2f} off"
