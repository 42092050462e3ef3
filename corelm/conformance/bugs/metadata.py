"""Parts whose maths is right, and that say something wrong of themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bugs.attention import TwoHeads
from corelm.conformance.bugs.feedforward import Gated, Mixture
from corelm.conformance.bugs.learning import LowRank, LowRankLinear
from corelm.conformance.bugs.norm import RootMeanSquare
from corelm.conformance.bugs.router import BestTwo
from corelm.conformance.planted import plant, reference
from corelm.kinds.carriers import LayerContext, LayerStep, SlotSpec
from corelm.kinds.cost import Cost, Work, cost_of, plain_cost
from corelm.kinds.parameters import Linear


@plant("papers_are_well_formed", "a digit of the id is missing")
class MistypedPaper(RootMeanSquare):
    """Divides by the root of the mean square (Zhang & Sennrich, 2019, arXiv:1910.7467)."""


@plant("papers_are_well_formed", "two digits of the id have changed places, and the month is the 19th")
class PaperOfNoMonth(RootMeanSquare):
    """Divides by the root of the mean square (Zhang & Sennrich, 2019, arXiv:1019.07467)."""


@plant("papers_are_well_formed", "the id of a paper that came years later")
class PaperOfLater(RootMeanSquare):
    """Divides by the root of the mean square (Zhang & Sennrich, 2019, arXiv:2410.07467)."""


@plant("papers_are_well_formed", "written so that nobody can look it up")
class PaperWithoutAColon(RootMeanSquare):
    """Divides by the root of the mean square (Zhang & Sennrich, 2019, arxiv 1910.07467)."""


@reference
class Counted(Gated):
    """Gate and value with biases, and what they cost."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.down = Linear(12, layer.dim, bias=True, residual=True)

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """Three maps, one bias."""
        return 3 * 12 * layer.dim + layer.dim

    def cost(self, work: Work) -> Cost:
        """The maps."""
        return plain_cost(self, work)


@plant("parameters_are_as_many_as_declared", "the bias is forgotten")
class BiasForgotten(Counted):
    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        return 3 * 12 * layer.dim


@plant("operations_are_as_many_as_declared", "a multiplication and its addition are counted as one")
class MultiplyAddCountedOnce(Counted):
    def cost(self, work: Work) -> Cost:
        whole = plain_cost(self, work)
        return Cost(whole.operations // 2, whole.reads)


@plant("operations_are_as_many_as_declared", "a map that is applied twice is counted once")
class AppliedTwice(Counted):
    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        return super().forward(super().forward(x, step), step)


@plant("reads_are_as_many_as_declared", "parameters are counted, not their bytes")
class ParametersForBytes(Counted):
    def cost(self, work: Work) -> Cost:
        whole = plain_cost(self, work)
        return Cost(whole.operations, sum(parameter.numel() for parameter in self.parameters()))


class _TwoOfThree(BestTwo):
    """The best two, and says so."""

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        self.chosen = 2

    def cost(self, work: Work) -> Cost:
        """Logits are computed once to choose by and once to be told."""
        once = plain_cost(self, work)
        return Cost(2 * once.operations, once.reads)


@reference
class Sparse(Mixture):
    """Runs the experts that are chosen, and no others."""

    one_graph = False
    router_class = _TwoOfThree

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        """Expert by expert."""
        flat = x.flatten(0, 1)
        routing = self.route(flat)
        self.report(routing, step)
        y = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = (routing.experts == number).nonzero(as_tuple=True)
            if len(token) or not len(flat):
                given = expert(flat[token][None], step)[0] * routing.weights[token, place, None].to(x.dtype)
                y = y.index_add(0, token, given)
        return self.with_shared(y.view_as(x), x, step)

    def cost(self, work: Work) -> Cost:
        """Router, two experts, the shared one."""
        each, choices = cost_of(self.experts[0], Work(1, 1)), 2 * work.tokens
        always = cost_of(self.router, work) + cost_of(self.shared, work)
        return always + Cost(each.operations * choices, each.reads * min(choices, 3))


@plant("operations_are_as_many_as_declared", "every expert is counted for every token")
class AllExpertsCounted(Sparse):
    def cost(self, work: Work) -> Cost:
        return Cost(plain_cost(self, work).operations, super().cost(work).reads)


@plant("reads_are_as_many_as_declared", "for one token all experts are said to be read")
class AllExpertsRead(Sparse):
    def cost(self, work: Work) -> Cost:
        return Cost(super().cost(work).operations, plain_cost(self, work).reads)


@plant("chooses_as_many_as_it_says", "the number of all experts is told for that of the chosen")
class AllAreChosen(BestTwo):
    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        self.chosen = experts


@reference
class Accounted(TwoHeads):
    """Two heads that say what they cost."""

    def cost(self, work: Work) -> Cost:
        """Maps, scores and mixed values."""
        return plain_cost(self, work) + Cost(self.per_pair() * work.tokens * self.met(work))

    def per_pair(self) -> int:
        """Operations for each query and key: both heads, both products."""
        return 4 * 2 * self.size

    def met(self, work: Work) -> int:
        """Keys that a query meets."""
        return work.keys


@plant("operations_are_as_many_as_declared", "scores are counted, and the values that they mix are not")
class ValuesForgotten(Accounted):
    def per_pair(self) -> int:
        return 2 * 2 * self.size


@plant("decoding_costs_what_is_declared", "queries meet the tokens of their own call only")
class PastNotCounted(Accounted):
    def met(self, work: Work) -> int:
        return work.time


@plant("decoding_costs_what_is_declared", "keys are counted that the window has dropped")
class WindowNotCounted(Accounted):
    def met(self, work: Work) -> int:
        return work.time + (work.past or 0)


@plant(
    "state_takes_what_is_declared", "one head is declared, which is repeated for each query head before it is stored"
)
class StoredPerQueryHead(TwoHeads):
    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        return {"kv": SlotSpec({"k": (1, self.size), "v": (1, self.size)}, grows=True, window=window)}


@plant("state_takes_what_is_declared", "keys and values are kept in float64, whatever the model's type")
class StoredWide(TwoHeads):
    def store(self, k: Tensor, v: Tensor, step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
        kept_k, kept_v, keys = super().store(k.double(), v.double(), step)
        return kept_k.to(k.dtype), kept_v.to(v.dtype), keys


@plant("decoding_costs_what_is_declared", "the slot isn't told of the window, and no token is ever dropped")
class SlotWithoutTheWindow(Accounted):
    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        return super().slots(None)


class _MultipliedOut(LowRankLinear):
    """Multiplies B with A first."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.factor * (x @ (self.b @ self.a).T)
        return y

    def cost(self, work: Work) -> Cost:
        """As if both were applied one after the other."""
        return plain_cost(self, work)


@plant("additions_cost_what_is_declared", "the addition is multiplied out for every call")
class MultipliesOut(LowRank):
    def made(self, linear: Linear, generator: torch.Generator) -> LowRankLinear:
        return _MultipliedOut(linear, self.config.rank, generator)
