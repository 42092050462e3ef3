"""More parts of a model that are wrong in one way: by name, in company, as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.bugs.attention import DecayingSum, TwoHeads
from corelm.conformance.bugs.feedforward import Mixture
from corelm.conformance.bugs.learning import LowRank
from corelm.conformance.bugs.mask import Band
from corelm.conformance.bugs.quantizer import Nearest
from corelm.conformance.bugs.scaling import Slower
from corelm.conformance.bugs.stack import Bell, PreNorm
from corelm.conformance.planted import plant, reference
from corelm.kinds.carriers import LayerStep
from corelm.kinds.component import ComponentConfig
from corelm.kinds.feedforward import Routing
from corelm.kinds.mask import MaskFacts
from corelm.kinds.parameters import ParameterInfo
from corelm.kinds.quantizer import Codes, Statistics


@reference
class DefinedSum(DecayingSum):
    """A recurrent mixer with its definition."""

    def reference(self, x: Tensor, step: LayerStep) -> Tensor:
        """Every real token of a document, weighed by how long ago it was."""
        valid, documents = step.step.valid, step.step.documents
        y = torch.zeros_like(x)
        for row, t in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
            age = 0
            for s in self.looked_at(t):
                real = valid is None or bool(valid[row, s])
                if real and (documents is None or documents[row, s] == documents[row, t]):
                    y[row, t] += 0.5**age * self.value(x[row, s])
                    age += 1
        return self.output(y)

    def looked_at(self, t: int) -> Iterator[int]:
        """From the newest back."""
        return iter(range(t, -1, -1))


@plant("equals_its_reference_in_company", "the state is carried into the next document")
class KeepsTheState(DefinedSum):
    """Starts afresh only with a row."""

    def moved(self, state: Tensor, fresh: Tensor, value: Tensor) -> Tensor:
        return state * 0.5 + value


@plant("equals_its_reference_in_company", "the first token of every document but the first is lost")
class LosesTheFirst(DefinedSum):
    """Starts afresh one token late."""

    def moved(self, state: Tensor, fresh: Tensor, value: Tensor) -> Tensor:
        again = fresh & bool(state.abs().sum() > 0)
        return state * ~fresh[:, None] * 0.5 + value * ~again[:, None]


@plant(
    "long_rows_begin_as_short_ones",
    "a block of 64 queries is never filled up, and the keys of the block are all seen",
)
class WholeBlocks(TwoHeads):
    """Causality by blocks, in rows of more than one."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        allowed = step.mask.dense(query, key)
        if len(query) <= 64:
            return allowed
        return allowed | ((key // 64 == query[:, None] // 64) & (query[:, None] >= 64))


@plant("long_rows_begin_as_short_ones", "the kernel for rows of more than 512 tokens knows no biases")
class LongRowsWithoutBias(TwoHeads):
    """Two kernels, one forgotten argument."""

    def biased(self, scores: Tensor, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        return scores if len(query) > 512 else super().biased(scores, query, key, step)


@plant("works_in_a_model", "all layers keep their keys in one place")
class OnePlaceForAllLayers(TwoHeads):
    """A store that belongs to the class."""

    kept: ClassVar[dict[str, Tensor]] = {}

    def store(self, k: Tensor, v: Tensor, step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
        past, (whole, values, index) = step.step.past, super().store(k, v, step)
        if step.slots is not None and past and self.kept["k"].shape[:3] == whole[..., :past, :].shape[:3]:
            whole = torch.cat([self.kept["k"], k], 2)
        if step.slots is not None:
            self.kept["k"] = whole.detach()
        return whole, values, index


@plant("works_in_a_model", "later keys weigh more, by their place in the row instead of in their document")
class PositionsOfTheRow(TwoHeads):
    """Counts tokens for itself."""

    def biased(self, scores: Tensor, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        return scores + 0.02 * key.square()


@plant("factor_one_is_plain", "one is added to the factor")
class OneTooSlow(Slower):
    """A factor of one already slows."""

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        return self.ladder.frequencies(device) / (1 + self.config.factor)


@plant("formula_of_its_name", "the window counts the tokens before the query, and not the query")
class WindowWithoutTheQuery(Band):
    """One too wide, and says so."""

    formula = "window"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.window = config.size + 1

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        distance = query[:, None] - key
        return ((distance >= 0) & (distance <= self.config.size))[None]


@plant("formula_of_its_name", "the deviation is divided by the fan-in rather than by its root")
class ByTheFanIn(Bell):
    """1/n."""

    formula = "fan-in"

    class Config(ComponentConfig):
        """Options."""

        gain: float = Field(1.0, gt=0, description="Factor.")
        vectors: float = Field(0.02, gt=0, description="Of vectors.")

    def deviation(self, name: str, info: ParameterInfo) -> float:
        depth = math.sqrt(2 * self.model.depth) if info.residual else 1.0
        return float(self.config.gain / (info.fan_in or 1 / self.config.vectors) / depth)


@plant("entries_are_independent", "one row is drawn, and every row is that one")
class OneRowForAll(Bell):
    """expand() in place of a draw."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        row = torch.empty(tensor.shape[1:])
        super().draw(name, info, row, generator)
        with torch.no_grad():
            tensor.copy_(row.expand_as(tensor))


@plant("unchosen_experts_are_idle", "every expert runs, and those left out have a tiny weight")
class NeverQuiteZero(Mixture):
    """1e-9 of all experts."""

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        return super().forward(x, step) + 1e-9 * sum(expert(x, step) for expert in self.experts)


@plant("merges_in_a_model", "of all maps that an adapter has wrapped, the first is merged into every one")
class MergesTheFirst(LowRank):
    """A merged map that is kept."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.done: dict[tuple[int, int], Any] = {}

    def wrap(self, linear: Any, name: str, generator: torch.Generator) -> Any:
        wrapped = super().wrap(linear, name, generator)
        merged, key, done = wrapped.merged, (linear.inputs, linear.outputs), self.done

        def first() -> Any:
            return done.setdefault(key, merged())

        wrapped.__dict__["merged"] = first
        return wrapped


@plant(
    "serves_as_a_linear_map",
    "the largest code is one too large, and spills into its neighbour where codes are packed",
)
class SpillsOver(Nearest):
    """16 in four bits."""

    def quantize(self, weight: Tensor, statistics: Statistics | None = None) -> Codes:
        codes = super().quantize(weight, statistics)
        top = codes.codes == 2**codes.bits - 1
        return replace(codes, codes=torch.where(top, 2**codes.bits % 256, codes.codes).to(torch.uint8))


@reference
class Balanced(Mixture):
    """Experts that are balanced as the field does it."""

    class Config(Mixture.Config):
        """Options."""

        balance: float = Field(0.01, ge=0, description="Weight of the loss.")

    def share(self, routing: Routing, expert: int) -> Tensor:
        """Of the choices."""
        return (routing.experts == expert).double().mean()

    def balance(self, routing: Routing, step: LayerStep) -> Tensor:
        """Over real tokens."""
        valid = step.step.new_valid()
        if valid is not None:
            kept = (
                getattr(routing, name)[valid.flatten()] for name in ("experts", "weights", "probabilities", "logits")
            )
            routing = Routing(*kept)
        shares = [self.share(routing, e) * routing.probabilities[:, e].mean() for e in range(3)]
        return self.config.balance * 3 * torch.stack(shares).sum()

    def report(self, routing: Routing, step: LayerStep) -> None:
        """Where it has a weight, and a token is real."""
        if self.config.balance and len(routing.experts):
            super().report(routing, step)


@plant("auxiliary_losses_are_those_named", "the share of tokens in place of the share of choices")
class ShareOfTokens(Balanced):
    """Twice as much where each token has two experts."""

    def share(self, routing: Routing, expert: int) -> Tensor:
        return (routing.experts == expert).any(-1).double().mean()


@reference
class NamedLayouts(PreNorm):
    """Pre-norm, or a norm of what the branch gives."""

    class Config(ComponentConfig):
        """Options."""

        layout: Literal["pre", "branch-post"] = Field("pre", description="Where the norm is.")

    def update(self, streams: Tensor, norm: Any, branch: Any, step: LayerStep) -> Tensor:
        """One sub-layer."""
        x = self.connection.read(streams)
        y: Tensor = branch(norm(x), step) if self.config.layout == "pre" else norm(branch(x, step))
        return self.connection.write(streams, y)

    def forward(self, streams: Tensor, step: LayerStep) -> Tensor:
        """Attention, then feed-forward."""
        branches = [branch for branch in (self.attention, self.feedforward) if branch is not None]
        for norm, branch in zip(self.norms, branches, strict=True):
            streams = self.update(streams, norm, branch, step)
        return streams


@plant("layout_of_its_name", "the norm of what the branch gives goes over the sum")
class NormsTheSum(NamedLayouts):
    """post for branch-post."""

    def update(self, streams: Tensor, norm: Any, branch: Any, step: LayerStep) -> Tensor:
        if self.config.layout == "pre":
            return super().update(streams, norm, branch, step)
        y: Tensor = norm(streams + branch(streams, step))
        return y


@plant("identity_at_zero_branches", "a branch's result is added to what the branch has read, whatever is carried on")
class ReplacesTheStreams(NamedLayouts):
    """The same where there is a single stream."""

    def update(self, streams: Tensor, norm: Any, branch: Any, step: LayerStep) -> Tensor:
        x = self.connection.read(streams)
        return self.connection.write(streams, branch(norm(x), step), keep=x)
