"""Properties of routers."""

from __future__ import annotations

from typing import Any

import torch

from corelm.conformance.bench import Bench, Subject, close
from corelm.conformance.framework import Draw, PartUnderTest, property_of

EXPERTS = 6


class RouterBench(Bench):
    """Six experts."""

    kind = "router"
    module = True
    activations = False  # scores are float32 or better, whatever comes in

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


def _route(part: PartUnderTest, draw: Draw) -> tuple[Any, torch.Tensor, Any]:
    subject = part.bench.subject(part, draw)
    x = part.bench.inputs(subject, draw)["x"]
    return subject.part, x, subject.part(x)


@property_of(
    "router",
    statement="Each token goes to distinct experts that exist, with finite weights that aren't negative.",
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
    catches="a softmax over the chosen ones, which makes the balancing loss meaningless",
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
    statement="Scores are computed in float32 or better, whatever the activations.",
    catches="choices that flip with bfloat16 rounding",
    tier="num",
    examples=10,
)
def scores_in_float32(part: PartUnderTest, draw: Draw) -> None:
    """bfloat16 tokens in, float32 probabilities out."""
    subject = part.bench.subject(part, draw, dtype=torch.float32)
    x = draw.normal(5, subject.context.dim).bfloat16()
    low, high = subject.part(x), subject.part(x.float())
    assert low.probabilities.dtype in (torch.float32, torch.float64), f"probabilities are {low.probabilities.dtype}"
    close(low.probabilities, high.probabilities, "scores of bfloat16 tokens and of the same in float32", 1e-6)
