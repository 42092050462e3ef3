"""The definition of softmax attention, one query at a time, and the property that holds every kernel to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.attention_bench import needs, ready
from corelm.conformance.bench import close
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.harness import Everything, ScoreBias, causal_rules, layer_step
from corelm.kinds.attention import Heads
from corelm.kinds.carriers import LayerStep
from corelm.kinds.component import ComponentConfig


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
    examples=30,
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
