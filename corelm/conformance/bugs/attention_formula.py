"""Softmax attention that computes something else than it declares."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.bugs.attention import DecayingSum, TwoHeads
from corelm.conformance.planted import plant, reference
from corelm.kinds.attention import Heads
from corelm.kinds.carriers import LayerContext, LayerStep
from corelm.kinds.component import ComponentConfig
from corelm.kinds.parameters import ParameterInfo, declare


@reference
class WithSinks(TwoHeads):
    """Each head may look at nothing."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.sinks = declare(self, "sinks", (2,), ParameterInfo("vector", constant=0.0))

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Sinks as well."""
        return super().offers(config) | {"sink"}

    def project(self, x: Tensor, step: LayerStep) -> Heads:
        """With the score of nothing."""
        return replace(super().project(x, step), sinks=self.sinks)

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        """Part of the softmax goes to nothing."""
        nothing = self.sinks[:, None, None].expand(*scores.shape[:-1], 1)
        hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return torch.cat((nothing, hidden), -1).softmax(-1)[..., 1:] * allowed


@plant("equals_the_definition", "the sink is added after the softmax is taken")
class SinkTooLate(WithSinks):
    """Weights shrink by the sink's size, whatever the scores are."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        return TwoHeads.weights(self, scores, allowed) / (1 + self.sinks.exp()[:, None, None])


@plant("equals_the_definition", "scores are divided by the width of a head, not by its root")
class DividedByWidth(TwoHeads):
    """1/d."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        return super().weights(scores * self.size**-0.5, allowed)


@plant("equals_the_definition", "the second head reads the first head's keys")
class HeadsShareKeys(TwoHeads):
    """Heads and groups mixed up."""

    def store(self, k: Tensor, v: Tensor, step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
        k, v, index = super().store(k, v, step)
        return k[:, :1].expand_as(k), v, index


@plant("equals_the_definition", "a bias is capped together with the score")
class CapsTheBias(TwoHeads):
    """The cap comes last."""

    def project(self, x: Tensor, step: LayerStep) -> Heads:
        return replace(super().project(x, step), softcap=1.0)

    def biased(self, scores: Tensor, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        return super().biased(scores, query, key, step).tanh()


class ManyHeads(ComponentConfig):
    """Options."""

    heads: int = Field(2, gt=0, description="Paces.")


@reference
class Forgetting(DecayingSum):
    """Each head halves its sum at its own pace, which it learns."""

    formula = "mamba2"
    Config = ManyHeads

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        places = [(head + 0.5) / config.heads for head in range(config.heads)]
        rates = tuple(math.log(1 + 15 * place) for place in places)
        steps = tuple(math.log(math.expm1(step)) for step in self.first_steps(places[::-1]))
        self.rate = declare(self, "rate", (config.heads,), ParameterInfo("vector", constant=rates))
        self.step = declare(self, "step", (config.heads,), ParameterInfo("bias", constant=steps))

    def first_steps(self, places: list[float]) -> list[float]:
        """From a thousandth to a tenth."""
        return [0.001 * 100**place for place in places]

    def moved(self, state: Tensor, fresh: Tensor, value: Tensor) -> Tensor:
        """All features by the mean of the heads."""
        pace = (self.rate.exp() * torch.nn.functional.softplus(self.step)).mean().to(state.dtype)
        return state * ~fresh[:, None] * torch.exp(-pace) + value


@plant("memories_of_its_name", "steps are spread evenly, not their logarithm: hardly a head remembers for long")
class EvenSteps(Forgetting):
    """Nine of ten above a hundredth."""

    def first_steps(self, places: list[float]) -> list[float]:
        return [0.001 + 0.099 * place for place in places]
