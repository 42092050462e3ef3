"""Properties of routers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of

MINIMUM = 7
"""So many of these properties must say something about every part of the kind, and hold."""

EXPERTS = 6


class RouterBench(Bench):
    """Six experts."""

    kind = "router"
    module = True
    activations = False  # scores are float32 or better, whatever comes in
    hints: Mapping[str, tuple[Any, ...]] = {
        "chosen": (2, 1, 3),
        "groups": (1, 3, 2),
        "groups_kept": (1, 2),
        "score": ("sigmoid", "softmax"),
    }

    def arguments(self, part: PartUnderTest, config: Any, context: Any, draw: Draw) -> tuple[Any, ...]:
        """Built with width and number of experts."""
        return (context.dim, EXPERTS)

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A few tokens."""
        return {"x": draw.normal(7, subject.context.dim, scale=draw.choice("magnitude", [1.0, 0.1, 10.0]))}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Route."""
        routing = subject.part(inputs["x"])
        return [routing.experts, routing.weights, routing.probabilities]

    def reference(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """``reference(x)`` is a routing."""
        routing = subject.part.reference(inputs["x"])
        return [routing.experts, routing.weights, routing.probabilities]

    def observe(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """Also what the weights are for."""
        return [self.call(subject, inputs), subject.part(inputs["x"]).weigh]


def _route(part: PartUnderTest, draw: Draw) -> tuple[Any, torch.Tensor, Any]:
    subject = part.bench.subject(part, draw)
    x = part.bench.inputs(subject, draw)["x"]
    return subject.part, x, subject.part(x)


@property_of(
    "router",
    statement="Each token goes to distinct experts that exist, with finite weights that aren't negative.",
    formula="e_i ≠ e_j, 0 ≤ e < E, 0 ≤ w < ∞",
    catches="an index out of range, an expert chosen twice",
    tier="bit",
)
def choices_are_valid(part: PartUnderTest, draw: Draw) -> None:
    """Look at the choices."""
    _, x, routing = _route(part, draw)
    assert routing.experts.shape == routing.weights.shape, "experts and weights differ in shape"
    assert routing.experts.shape[0] == len(x), "one row of choices per token"
    assert ((routing.experts >= 0) & (routing.experts < EXPERTS)).all(), "an expert that doesn't exist"
    chosen = routing.experts.sort(-1).values
    assert (chosen[:, 1:] != chosen[:, :-1]).all(), "a token goes to the same expert twice"
    assert routing.weights.isfinite().all() and (routing.weights >= 0).all(), "weights are finite and not negative"


@property_of(
    "router",
    statement="Probabilities are those of all experts: they sum to one.",
    formula="Σ_e p_e = 1",
    catches="a softmax over the chosen ones, which makes the balancing loss meaningless",
    tolerance="Scores may be float32.",
)
def probabilities_sum_to_one(part: PartUnderTest, draw: Draw) -> None:
    """Sum."""
    _, x, routing = _route(part, draw)
    assert routing.probabilities.shape == (len(x), EXPERTS), f"shape {tuple(routing.probabilities.shape)}"
    close(
        routing.probabilities.sum(-1), torch.ones(len(x), dtype=routing.probabilities.dtype), "the sum and one", 1e-6
    )


@property_of(
    "router",
    statement="Each token is routed on its own.",
    formula="route(PX) = P route(X)",
    catches="a softmax over tokens, a capacity",
)
def tokens_are_independent(part: PartUnderTest, draw: Draw) -> None:
    """Permute tokens."""
    router, x, routing = _route(part, draw)
    order = draw.permutation(len(x))
    again = router(x[order])
    assert torch.equal(again.experts, routing.experts[order]), "permuting tokens changes their experts"
    close(again.weights, routing.weights[order], "weights of permuted tokens")
    few = router(x[:2])
    assert torch.equal(few.experts, routing.experts[:2]), "two tokens alone go to other experts"
    close(few.weights, routing.weights[:2], "weights of two tokens alone")


@property_of(
    "router",
    statement="Of the chosen experts, a more probable one has no smaller weight.",
    formula="p_a > p_b ⇒ w_a ≥ w_b",
    catches="weights paired with the wrong experts",
)
def weights_follow_probabilities(part: PartUnderTest, draw: Draw) -> None:
    """Compare orders."""
    _, _, routing = _route(part, draw)
    of_chosen = routing.probabilities.gather(1, routing.experts)
    order = of_chosen.argsort(-1, descending=True)
    weights = routing.weights.gather(1, order)
    assert (weights[:, 1:] <= weights[:, :-1] + 1e-9).all(), "a less probable expert has the larger weight"


@property_of(
    "router",
    statement="A router that offers `greedy` sends each token to its most probable experts, told apart by their logits where "
    "their scores are rounded to one or to zero.",
    formula="min p of the chosen ≥ max p of the others, and so for logits",
    catches="the least probable experts, a bias or a group that is not declared, ties of sigmoids that go by number",
    examples=50,
)
def greedy_as_offered(part: PartUnderTest, draw: Draw) -> None:
    """The worst of the chosen against the best of the others; now and then with logits around a hundred."""
    alike = {"groups": 1, "groups_kept": 1} if draw.choice("groups", ["one", "any"]) == "one" else {}
    subject = part.bench.subject(part, draw, selection_bias=False, **alike)
    if "greedy" not in subject.part.offers(subject.config):
        raise NotApplicable("it doesn't offer `greedy` under this config")
    assert subject.part.selection_bias is None, "it says that it is greedy, and has a selection bias"
    x = draw.normal(7, subject.context.dim, scale=draw.choice("magnitude", [1.0, 60.0]))
    routing = subject.part(x)
    chosen = torch.zeros_like(routing.probabilities, dtype=torch.bool).scatter(1, routing.experts, True)
    for name, values in (("probable", routing.probabilities), ("wanted", routing.logits)):
        worst = values.masked_fill(~chosen, torch.inf).amin(-1)
        left_out = values.masked_fill(chosen, -torch.inf).amax(-1)
        assert (worst >= left_out).all(), f"a more {name} expert is left out"


@property_of(
    "router",
    statement="Where weights are normalised they sum to the router's scale.",
    formula="Σ w = scale",
    catches="a scale that is divided away again, a sum over all experts, weights that are divided before the choice",
    tolerance="Scores may be float32.",
)
def weights_sum_as_promised(part: PartUnderTest, draw: Draw) -> None:
    """Sum."""
    router, _, routing = _route(part, draw)
    if not getattr(router.config, "normalise", False):
        raise NotApplicable("it doesn't promise normalised weights under this config")
    scale = float(getattr(router.config, "scale", 1.0))
    close(routing.weights.sum(-1), torch.full_like(routing.weights[:, 0], scale), "the sum and the scale", 1e-6)


@property_of(
    "router",
    statement="A selection bias decides who is chosen, and has no part in weights or probabilities.",
    formula="p(x; b) = p(x), w_e(x; b) = w_e(x), route(x; b + c·1) = route(x; b)",
    catches="weights gathered from the biased scores, a bias with the wrong sign",
)
def selection_bias_only_selects(part: PartUnderTest, draw: Draw) -> None:
    """Favour one expert until everyone goes there; shift all alike; compare tokens whose choices are as before."""
    subject = part.bench.subject(part, draw, selection_bias=True)
    router, x = subject.part, part.bench.inputs(subject, draw)["x"]
    bias: Tensor | None = router.selection_bias
    if bias is None:
        assert not getattr(subject.config, "selection_bias", False), (
            "the config asks for a selection bias; there is none"
        )
        raise NotApplicable("it has no selection bias")
    assert not bias.requires_grad, "a gradient reaches the selection bias"
    routing, favourite = router(x), draw.integer("favourite", 0, EXPERTS - 1)
    with torch.no_grad():
        bias.copy_(draw.normal(EXPERTS, scale=0.2))
    moved = router(x)
    close(moved.probabilities, routing.probabilities, "probabilities with and without a selection bias", 1e-12)
    for before, after in zip(_by_expert(routing), _by_expert(moved), strict=True):
        if before.keys() == after.keys():
            close(
                after, {e: before[e] for e in after}, "weights of the same experts with and without the bias", 1e-12
            )
    with torch.no_grad():
        bias.add_(1.0)
    close(_by_expert(router(x)), _by_expert(moved), "routes under one more for every expert", 1e-12)
    with torch.no_grad():
        bias[favourite] += 100.0
    assert (router(x).experts == favourite).any(-1).all(), f"expert {favourite} is favoured, and not always chosen"


def _by_expert(routing: Any) -> list[dict[int, Tensor]]:
    """Weight of each chosen expert, per token, in the order of the experts."""
    return [
        dict(sorted(zip(experts.tolist(), weights.detach(), strict=True)))
        for experts, weights in zip(routing.experts, routing.weights, strict=True)
    ]


@property_of(
    "router",
    statement="Tokens go only to their best groups: those with the best score, or the best sum of two.",
    formula="chosen = top-k of ∪ best groups, by max or the sum of two",
    catches="experts dealt out to groups in turn, the score of the unbiased, a mask that lets others through",
)
def keeps_to_the_best_groups(part: PartUnderTest, draw: Draw) -> None:
    """Score the groups one by one."""
    subject = part.bench.subject(part, draw, groups=3, groups_kept=draw.choice("kept", [1, 2]), chosen=2)
    router, config = subject.part, subject.config
    if getattr(config, "groups", 1) == 1:
        raise NotApplicable("it knows no groups")
    if router.selection_bias is not None:
        router.selection_bias.copy_(draw.normal(EXPERTS, scale=0.2))
    routing = router(part.bench.inputs(subject, draw)["x"])
    scores = routing.logits.sigmoid() if config.score == "sigmoid" else routing.logits.softmax(-1)
    scores = scores if router.selection_bias is None else scores + router.selection_bias
    size = EXPERTS // config.groups
    for token, experts in zip(scores.detach(), routing.experts.tolist(), strict=True):
        values = [sorted(token[g * size : (g + 1) * size].tolist())[::-1] for g in range(config.groups)]
        counted = 2 if config.group_score == "best-two" else 1
        ranked = sorted(range(config.groups), key=lambda g: -sum(values[g][:counted]))
        kept = set(ranked[: config.groups_kept])
        allowed = sorted((e for e in range(EXPERTS) if e // size in kept), key=lambda e: -float(token[e]))
        best = set(allowed[: len(experts)])
        assert set(experts) == best, (
            f"goes to experts {sorted(experts)}; the best of groups {sorted(kept)} are {best}"
        )


@property_of(
    "router",
    statement="Scores are computed in float32 or better, whatever the activations.",
    formula="|p(x in bfloat16) − p(x in float32)| ≤ 10⁻⁶",
    catches="choices that flip with bfloat16 rounding",
    tier="num",
    tolerance="The same numbers in both types; some roundings of float32.",
    examples=10,
)
def scores_in_float32(part: PartUnderTest, draw: Draw) -> None:
    """bfloat16 tokens in, float32 probabilities out."""
    subject = part.bench.subject(part, draw, dtype=torch.float32)
    x = draw.normal(5, subject.context.dim).bfloat16()
    low, high = subject.part(x), subject.part(x.float())
    assert low.probabilities.dtype in (torch.float32, torch.float64), f"probabilities are {low.probabilities.dtype}"
    close(low.probabilities, high.probabilities, "scores of bfloat16 tokens and of the same in float32", 1e-6)
