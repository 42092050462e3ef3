"""Mistakes that are made again and again in norms, embeddings, heads, blocks, connections and initialisations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corelm.conformance.bugs.norm import RootMeanSquare
from corelm.conformance.bugs.stack import Bell, OneStream, PreNorm, Reader, Vectors
from corelm.conformance.harness import layer_step
from corelm.conformance.planted import plant
from corelm.kinds.block import BlockParts
from corelm.kinds.carriers import LayerContext, LayerStep, ModelContext
from corelm.kinds.parameters import ParameterInfo, declare


@plant(
    "homogeneous_in_gain", "a gain that is stored as its distance from one is multiplied as it is (Liger-Kernel#85)"
)
class GainWithoutItsOne(RootMeanSquare):
    """Begins as zero."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.weight = declare(self, "weight", (dim,), ParameterInfo("norm", constant=0.0))


@plant("second_moment", "each shard of the features has a statistic of its own, as under tensor parallelism")
class ShardedStatistic(RootMeanSquare):
    """Two halves."""

    def divide(self, x: Tensor) -> Tensor:
        return torch.cat([super(ShardedStatistic, self).divide(half) for half in x.chunk(2, -1)], -1)


@plant("second_moment", "the option eps is taken and never used (keras-hub#1472)")
class IgnoresEps(RootMeanSquare):
    """Its own number."""

    def divide(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(self.statistic(x) + 1e-6)


@plant("table_is_the_table", "id 0 is taken for padding: its vector is zero and never learns")
class FirstIdIsPadding(Vectors):
    """padding_idx=0."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * (ids != 0)[..., None]


@plant("ids_are_told_apart", "ids are clamped to one less than the vocabulary")
class ClampsIds(Vectors):
    """Off by one."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids.clamp(max=self.model.vocab_size - 2))


@plant("unprojects_to_the_table", "a narrow table is projected up, and nothing projects down for a tied head")
class ProjectsOneWay(Vectors):
    """Factorised, in one direction only."""

    def __init__(self, config: Any, model: ModelContext) -> None:
        super().__init__(config, model)
        size = model.dim // 2
        self.weight = declare(self, "weight", (model.vocab_size, size), ParameterInfo("embedding"))
        self.up = declare(self, "up", (model.dim, size), ParameterInfo("matrix", fan_in=size))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) @ self.up.T


@plant("deterministic", "dropout is called without saying that this is no training")
class DropsInEvaluation(Vectors):
    """F.dropout trains by default."""

    def forward(self, ids: Tensor) -> Tensor:
        return F.dropout(super().forward(ids), 0.1)


@plant("any_leading_axes", "the last token is picked inside of the head")
class PicksTheLast(Reader):
    """hidden[:, -1]."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden[:, -1:])


@plant(
    "outputs_as_declared",
    "the vocabulary is rounded up to a multiple of 64, and logits of ids that don't exist come out",
)
class RoundsUp(Reader):
    """Faster, and wider."""

    @property
    def outputs(self) -> int:
        return -(-self.model.vocab_size // 64) * 64

    def forward(self, hidden: Tensor) -> Tensor:
        return F.pad(super().forward(hidden), (0, self.outputs - self.model.vocab_size))


@plant("dtype_is_kept", "logits are cast to float32 for good")
class WideLogits(Reader):
    """Twice the memory."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden).to(torch.promote_types(hidden.dtype, torch.float32))


@plant("identity_at_zero_branches", "what is carried on is the normalised stream")
class CarriesTheNorm(PreNorm):
    """residual = norm(x)."""

    def forward(self, streams: Tensor, step: LayerStep) -> Tensor:
        branches = [branch for branch in (self.attention, self.feedforward) if branch is not None]
        for norm, branch in zip(self.norms, branches, strict=True):
            read = norm(self.connection.read(streams))
            streams = self.add(read, self.branch(branch, read, step))
        return streams


@plant("identity_at_zero_branches", "a branch that adds its own input is added to it once more")
class AddsTwice(PreNorm):
    """2x + f(x)."""

    def branch(self, module: Any, x: Tensor, step: LayerStep) -> Tensor:
        return x + super().branch(module, x, step)


@plant("runs_each_branch_once", "the branch is given a step of its own, without positions, masks and state")
class LosesTheStep(PreNorm):
    """A default argument."""

    def branch(self, module: Any, x: Tensor, step: LayerStep) -> Tensor:
        return super().branch(module, x, layer_step(x.shape[0], x.shape[1]))


@plant("deterministic", "whole branches are dropped by chance, in evaluation too")
class StochasticDepth(PreNorm):
    """No look at the mode."""

    dropped = 0

    def branch(self, module: Any, x: Tensor, step: LayerStep) -> Tensor:
        self.dropped += 1
        kept = torch.rand((), generator=torch.Generator().manual_seed(self.dropped)) < 0.5
        return super().branch(module, x, step) * kept


@plant("pure", "the result is added in place, into the embedding itself")
class AddsInPlace(OneStream):
    """streams += y."""

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            streams.add_(y)
        return streams if keep is None else keep + y


@plant("zero_write_is_identity", "the sum is halved, so that a deep stack forgets its input")
class AveragesTheStream(OneStream):
    """(x + y) / 2."""

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return super().write(streams, y, keep=keep) / 2


@plant("gradients_are_derivatives", "the stream is detached, so that only the last layer learns")
class DetachesTheStream(OneStream):
    """x.detach() + y."""

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return super().write(streams.detach(), y, keep=keep)


@plant("tokenwise", "the stream is normalised over time instead of over features")
class NormalisesOverTime(OneStream):
    """dim=1."""

    def read(self, streams: Tensor) -> Tensor:
        return F.normalize(super().read(streams), dim=1)


class _Drawn(Bell):
    """A normal draw of another deviation than is declared."""

    def times(self, tensor: Tensor) -> float:
        """Deviation by the declared one."""
        return 1.0

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        with torch.no_grad():
            tensor.normal_(0.0, self.deviation(name, info) * self.times(tensor), generator=generator)


@plant("deviation_as_declared", "outputs are taken for inputs: 1/√fan-out under the name of fan-in")
class FanOut(_Drawn):
    """The other axis."""

    def times(self, tensor: Tensor) -> float:
        return float((tensor.shape[-1] / tensor.shape[0]) ** 0.5)


@plant("deviation_as_declared", "a normal cut off at two deviations has a deviation of 0.88, which nobody corrects")
class CutOff(Bell):
    """trunc_normal."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        deviation = self.deviation(name, info)
        nn.init.trunc_normal_(tensor, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)


@plant("generator_decides", "the global random state is used")
class GlobalState(Bell):
    """Whoever drew before decides."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        nn.init.normal_(tensor, 0.0, self.deviation(name, info))


@plant("generator_decides", "the row of the padding token is left as it was allocated")
class SkipsARow(Bell):
    """Never drawn."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        super().draw(name, info, tensor[1:], generator)


@plant("generator_decides", "a parameter is filled as if it were any tensor, while gradients are recorded")
class DrawsWithGradients(Bell):
    """No torch.no_grad()."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        tensor.normal_(0.0, self.deviation(name, info), generator=generator)


@plant("every_role_is_known", "divided by the root of the number of layers, of which there may be none")
class CountsOnLayers(Bell):
    """1/√0."""

    def deviation(self, name: str, info: ParameterInfo) -> float:
        return super().deviation(name, info) / (2 * self.model.depth if info.residual else 1) ** 0.5


@plant("branches_may_be_missing", "the second norm belongs to the feed-forward, whichever branch is left")
class NormsByPlace(PreNorm):
    """Counts on both."""

    def __init__(self, config: Any, layer: LayerContext, parts: BlockParts) -> None:
        super().__init__(config, layer, parts)
        self.norms = nn.ModuleList(parts.norm(layer.dim) for _ in range(2))
