"""Embeddings, heads, blocks, connections and initialisations that are wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from corelm.conformance.harness import AddTo
from corelm.conformance.planted import plant, reference
from corelm.kinds.block import Block, BlockParts
from corelm.kinds.carriers import LayerContext, LayerStep, ModelContext
from corelm.kinds.component import ComponentConfig
from corelm.kinds.embedding import Embedding
from corelm.kinds.head import Head
from corelm.kinds.init import Init
from corelm.kinds.parameters import Linear, ParameterInfo, declare


@reference
class Vectors(Embedding):
    """A table."""

    def __init__(self, config: Any, model: ModelContext) -> None:
        super().__init__(config, model)
        self.weight = declare(self, "weight", (model.vocab_size, model.dim), ParameterInfo("embedding"))

    @property
    def table(self) -> nn.Parameter:
        """The table."""
        return self.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Look up."""
        return self.weight[ids]


@plant("by_id_only", "a trace of the place")
class PlaceMixedIn(Vectors):
    """Positions."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + 1e-3 * torch.arange(ids.shape[1], device=ids.device)[None, :, None]


@plant("ids_are_told_apart", "half of the table is never used")
class HalfATable(Vectors):
    """Modulo."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids % (self.model.vocab_size // 2))


@plant("table_is_the_table", "rows are centred")
class CentredTable(Vectors):
    """Depends on all rows."""

    def forward(self, ids: Tensor) -> Tensor:
        return (self.weight - self.weight.mean(0))[ids]


@plant("unprojects_to_the_table", "hidden states are squashed on the way back")
class Squashes(Vectors):
    """Not linear."""

    def unproject(self, hidden: Tensor) -> Tensor:
        return hidden.tanh()


@reference
class Reader(Head):
    """Logits, tied or not."""

    reads = "vocabulary"

    class Config(ComponentConfig):
        """Options."""

        tied: bool = Field(False, description="Whether the table is used.")

    def __init__(self, config: Any, model: ModelContext, embedding: Embedding) -> None:
        super().__init__(config, model, embedding)
        self.hold(embedding)
        self.own = None if config.tied else Linear(model.dim, model.vocab_size, role="head")

    def hold(self, embedding: Embedding) -> None:
        """Keep the embedding without registering it."""
        self.__dict__["held"] = embedding

    @property
    def outputs(self) -> int:
        """Ids."""
        return self.model.vocab_size

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply."""
        return hidden @ self.__dict__["held"].table.T if self.own is None else self.own(hidden)


@plant("any_leading_axes", "needs a batch and a time")
class NeedsThreeAxes(Reader):
    """Unpacks the shape."""

    def forward(self, hidden: Tensor) -> Tensor:
        _, _, _ = hidden.shape
        return super().forward(hidden)


@plant("outputs_as_declared", "a value with as many outputs as ids")
class WideScalar(Reader):
    """Not one."""

    reads = "scalar"  # type: ignore[assignment]


@plant("embedding_stays_outside", "the embedding is a sub-module")
class OwnsTheEmbedding(Reader):
    """Registered."""

    def hold(self, embedding: Embedding) -> None:
        super().hold(embedding)
        self.embedding = embedding


@plant("tied_means_tied", "a copy of the table")
class CopiesTheTable(Reader):
    """Follows nothing."""

    def hold(self, embedding: Embedding) -> None:
        from copy import deepcopy

        self.__dict__["held"] = deepcopy(embedding)


@plant("every_output_varies", "the last output is a constant")
class ConstantOutput(Reader):
    """Cut off."""

    def forward(self, hidden: Tensor) -> Tensor:
        y = super().forward(hidden)
        return torch.cat([y[..., :-1], torch.zeros_like(y[..., -1:])], -1)


@reference
class PreNorm(Block):
    """Norm, branch, add; twice."""

    def __init__(self, config: Any, layer: LayerContext, parts: BlockParts) -> None:
        super().__init__(config, layer, parts)
        self.attention, self.feedforward, self.connection = parts.attention, parts.feedforward, parts.connection
        self.norms = nn.ModuleList(parts.norm(layer.dim) for branch in (self.attention, self.feedforward) if branch)

    def branch(self, module: Any, x: Tensor, step: LayerStep) -> Tensor:
        """Run one."""
        y: Tensor = module(x, step)
        return y

    def add(self, streams: Tensor, y: Tensor) -> Tensor:
        """Write."""
        return self.connection.write(streams, y)

    def forward(self, streams: Tensor, step: LayerStep) -> Tensor:
        """Run all."""
        branches = [branch for branch in (self.attention, self.feedforward) if branch is not None]
        for norm, branch in zip(self.norms, branches, strict=True):
            streams = self.add(streams, self.branch(branch, norm(self.connection.read(streams)), step))
        return streams


@plant("identity_at_zero_branches", "the stream is scaled")
class ScalesTheStream(PreNorm):
    """A little."""

    def add(self, streams: Tensor, y: Tensor) -> Tensor:
        return super().add(0.99 * streams, y)


@plant("mixes_nothing_itself", "the stream takes in a trace of the token before")
class Shifts(PreNorm):
    """Token shift."""

    def add(self, streams: Tensor, y: Tensor) -> Tensor:
        return super().add(streams, y + 1e-6 * streams.roll(1, 1))


@plant("runs_each_branch_once", "each branch runs twice")
class RunsTwice(PreNorm):
    """Average of equals."""

    def branch(self, module: Any, x: Tensor, step: LayerStep) -> Tensor:
        return (super().branch(module, x, step) + super().branch(module, x, step)) / 2


@plant("branches_may_be_missing", "needs an attention")
class NeedsBoth(PreNorm):
    """Doesn't ask."""

    def forward(self, streams: Tensor, step: LayerStep) -> Tensor:
        assert self.attention is not None and self.feedforward is not None, "needs both branches"
        return super().forward(streams, step)


@plant("both_branches_matter", "the first branch's result is thrown away")
class ForgetsTheFirst(PreNorm):
    """Starts over."""

    def branch(self, module: Any, x: Tensor, step: LayerStep) -> Tensor:
        y = super().branch(module, x, step)
        return 0 * y if module is self.attention else y


@reference
class OneStream(AddTo):
    """Adds."""

    formula = "single"


@plant("zero_write_is_identity", "the stream decays")
class Decays(OneStream):
    """A percent."""

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return super().write(0.99 * streams, y, keep=keep)


@plant("writes_are_read", "results are lost")
class LosesResults(OneStream):
    """Zero."""

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return super().write(streams, 0 * y, keep=keep)


@plant("keep_replaces", "keep is ignored")
class IgnoresKeep(OneStream):
    """Not read."""

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return streams + y


@plant("formula_of_its_name", "what a branch gives is subtracted")
class Subtracts(OneStream):
    """Minus."""

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return super().write(streams, -y, keep=keep)


@plant("tokenwise", "a trace of the mean over tokens")
class MeanOverTokens(OneStream):
    """Mixes."""

    def exit(self, streams: Tensor) -> Tensor:
        return streams + 1e-3 * streams.roll(1, 1)


@reference
class Bell(Init):
    """Normal."""

    class Config(ComponentConfig):
        """Options."""

        width: float = Field(0.02, gt=0, description="Deviation.")

    def deviation(self, name: str, info: ParameterInfo) -> float:
        """The same for all."""
        return float(self.config.width)


@plant("deviation_as_declared", "the variance for the deviation")
class VarianceForDeviation(Bell):
    """Squared."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        with torch.no_grad():
            tensor.normal_(0.0, self.deviation(name, info) ** 0.5, generator=generator)


@plant("generator_decides", "every parameter gets the same values")
class FixedSeed(Bell):
    """Ignores the generator."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        super().draw(name, info, tensor, torch.Generator().manual_seed(0))


@plant("layers_are_alike", "deeper layers get less, by their number in the name")
class ByName(Bell):
    """Parses names."""

    def deviation(self, name: str, info: ParameterInfo) -> float:
        return float(self.config.width) / (1 + int(name.split(".")[1] if "." in name else 0))


@plant("every_role_is_known", "1/√fan-in where there is none")
class NoFanIn(Bell):
    """inf."""

    def deviation(self, name: str, info: ParameterInfo) -> float:
        return float("inf") if info.fan_in == 0 else info.fan_in**-0.5
