"""Objectives and adapters that are wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from corelm.conformance.planted import plant, reference
from corelm.kinds.adapter import AdaptedLinear, Adapter
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import ComponentConfig
from corelm.kinds.logprobs import token_logprobs
from corelm.kinds.objective import Objective, Terms
from corelm.kinds.parameters import Linear, ParameterInfo, declare


@reference
class Likelihood(Objective):
    """Minus the sum of the targets' log-probabilities."""

    def kept(self, batch: Batch) -> Tensor:
        """Which positions count."""
        return batch.targets != IGNORE

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Sum."""
        picked = answer.where(self.kept(batch), 0.0)
        return self.terms(-picked.sum(), picked.detach().sum())

    def terms(self, total: Tensor, figure: Tensor) -> Terms:
        """With a figure."""
        return Terms(total, {"logprob": figure})


@plant("additive", "a mean in place of a sum (transformers#24725)")
class Mean(Likelihood):
    """Weighs micro-batches wrongly."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        terms = super().loss(answer, batch)
        return Terms(terms.total / self.count(batch), terms.sums)


@plant("no_target_no_gradient", "prompts are learnt as well")
class LearnsPrompts(Likelihood):
    """Every token has a target, the first of the row for the last."""

    def answer(self, model: Any, hidden: Tensor, batch: Batch) -> Tensor:
        return token_logprobs(hidden, model.head, batch.ids.roll(-1, 1))

    def kept(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch.targets, dtype=torch.bool)


@plant("finite_when_wrong", "back to probabilities and to logarithms again")
class ThroughProbabilities(Likelihood):
    """log(exp(x))."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return super().loss(answer.exp().log(), batch)


@plant("figures_are_detached", "a figure with a graph")
class KeepsTheGraph(Likelihood):
    """Not detached."""

    def terms(self, total: Tensor, figure: Tensor) -> Terms:
        return super().terms(total, -total)


@plant("order_of_rows_is_free", "the first rows count more")
class WeighsByRow(Likelihood):
    """1/(row + 1)."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        return super().loss(answer / torch.arange(1, len(answer) + 1)[:, None], batch)


@plant("better_is_lower", "the sign: likelihoods are made smaller")
class WrongWay(Likelihood):
    """Ascends."""

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        terms = super().loss(answer, batch)
        return Terms(-terms.total, terms.sums)


@reference
class Pairwise(Objective):
    """Bradley–Terry."""

    reads = "rewards"
    law = "pairwise-reward"

    def count(self, batch: Batch) -> int:
        """Pairs."""
        return len(batch.ids) // 2

    def difference(self, answer: Tensor) -> Tensor:
        """Chosen minus rejected."""
        return answer[0::2, 0] - answer[1::2, 0]

    def loss(self, answer: Tensor, batch: Batch) -> Terms:
        """Sum."""
        return Terms(-F.logsigmoid(self.difference(answer)).sum())


@plant("antisymmetric", "the difference is clamped")
class ClampedDifference(Pairwise):
    """At one half."""

    def difference(self, answer: Tensor) -> Tensor:
        return super().difference(answer).clamp(max=0.5)


@reference
class LowRank(Adapter):
    """W + B A."""

    class Config(ComponentConfig):
        """Options."""

        rank: int = Field(2, ge=1, le=4, description="Inner size.")

    def wrap(self, linear: Linear, name: str, generator: torch.Generator) -> AdaptedLinear:
        """Wrap."""
        return self.made(linear, generator)

    def made(self, linear: Linear, generator: torch.Generator) -> LowRankLinear:
        """What wraps."""
        return LowRankLinear(linear, self.config.rank, generator)


class LowRankLinear(AdaptedLinear):
    """The wrapped map."""

    factor = 0.5

    def __init__(self, linear: Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base: Linear = self.freeze(linear)
        with linear.weight.device:
            self.declare_both(linear, rank)
        if self.draws(linear):
            with torch.no_grad():
                self.a.copy_(torch.randn(self.a.shape, generator=generator))
                self.b.fill_(self.start)

    start = 0.0

    def draws(self, linear: Linear) -> bool:
        """Where there are numbers at all."""
        return not linear.weight.is_meta

    def freeze(self, linear: Linear) -> Linear:
        """Not trainable."""
        return linear.requires_grad_(False)

    def declare_both(self, linear: Linear, rank: int) -> None:
        """A and B."""
        self.a = declare(self, "a", (rank, linear.inputs), ParameterInfo("matrix", linear.inputs))
        self.b = declare(self, "b", (linear.outputs, rank), ParameterInfo("matrix", rank, constant=0.0))
        self.a.data, self.b.data = self.a.data.to(linear.weight.dtype), self.b.data.to(linear.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Both."""
        y: Tensor = self.base(x) + self.factor * (x @ self.a.T @ self.b.T)
        return y

    @torch.no_grad()
    def merged(self) -> Linear:
        """One map."""
        base = self.below()
        merged = Linear(base.inputs, base.outputs, bias=base.bias is not None).to(self.a.dtype)
        merged.load_state_dict(base.state_dict())
        merged.weight.add_(self.scale() * (self.b @ self.a))
        return merged

    def below(self) -> Linear:
        """What was wrapped, which may have been wrapped in turn."""
        return self.base.merged() if isinstance(self.base, AdaptedLinear) else self.base

    def scale(self) -> float:
        """Of the merged addition."""
        return self.factor


def _variant(name: str, **changes: Any) -> type[LowRank]:
    """An adapter whose wrapped map is changed."""
    inner = type(f"{name}Linear", (LowRankLinear,), changes)

    def made(self: LowRank, linear: Linear, generator: torch.Generator) -> LowRankLinear:
        built: LowRankLinear = inner(linear, self.config.rank, generator)
        return built

    formula = changes.get("formula", "")
    variant: type[LowRank] = type(name, (LowRank,), {"made": made, "formula": formula, "__doc__": "One mistake."})
    return variant


def _bare(self: Any, linear: Linear, rank: int) -> None:
    self.a = nn.Parameter(torch.empty(rank, linear.inputs, dtype=linear.weight.dtype))
    self.b = nn.Parameter(torch.empty(linear.outputs, rank, dtype=linear.weight.dtype))


def _innermost(self: Any) -> Linear:
    base = self.base
    while isinstance(base, AdaptedLinear):
        base = base.base
    found: Linear = base
    return found


def _mixes(self: Any, x: Tensor) -> Tensor:
    y: Tensor = self.base(x) + self.factor * (x @ self.a.T @ self.b.T)
    return y + self.factor * (x.mean(-2, keepdim=True) @ self.a.T @ self.b.T)


plant("identity_at_the_start", "the addition begins at one")(_variant("StartsAtOne", start=1.0))
plant("merged_equals_wrapped", "the factor is forgotten in merging")(
    _variant("ForgetsTheFactor", scale=lambda self: 1.0)
)
plant("base_is_frozen", "the base is trained as well")(_variant("TrainsTheBase", freeze=lambda self, linear: linear))
plant("additions_are_declared", "bare parameters")(_variant("BareAdditions", declare_both=_bare))
plant("tokenwise", "the mean over tokens is added")(_variant("MixesTokensIn", forward=_mixes))
plant("bases_may_be_adapted_too", "the weight below is read, whatever has been put around it since")(
    _variant("OneAdditionOnly", below=_innermost)
)
plant("wraps_maps_without_numbers", "what begins as noise is drawn on the processor, wherever the map is")(
    _variant("DrawsForNothing", draws=lambda self, linear: True)
)
plant("begins_as_its_name_says", "drawn from a normal distribution of deviation one")(
    _variant("LargeNoise", formula="lora")
)
