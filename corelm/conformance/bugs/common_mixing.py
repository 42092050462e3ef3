"""Mistakes that are made again and again in attention, positions, feed-forwards, activations and routers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.bugs.attention import TwoHeads
from corelm.conformance.bugs.feedforward import Mixture, Swish
from corelm.conformance.bugs.position import Distance, Rotary, Table
from corelm.conformance.bugs.router import BestTwo
from corelm.conformance.bugs.scaling import Slower, SlowerWhenLong
from corelm.conformance.planted import plant
from corelm.kinds.carriers import LayerStep
from corelm.kinds.feedforward import Routing
from corelm.kinds.parameters import ParameterInfo, declare
from corelm.kinds.position import PositionGeometry


@plant("causal", "heads and time are not swapped back before the last map, so that tokens and heads mix")
class ForgetsToTranspose(TwoHeads):
    """view in place of transpose."""

    def finish(self, mixed: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.output(mixed.reshape(x.shape))
        return y


@plant("causal", "the softmax runs over queries")
class SoftmaxOverQueries(TwoHeads):
    """dim=-2."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-2) * allowed


@plant("equals_the_definition", "scores are not scaled")
class NoScale(TwoHeads):
    """1 in place of 1/√d."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        return super().weights(scores * self.size**0.5, allowed)


@plant("cached_equals_full", "new tokens are put before the old ones, and the index says otherwise")
class StoresBackwards(TwoHeads):
    """cat([new, old])."""

    def store(self, k: Tensor, v: Tensor, step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
        k, v, index = super().store(k, v, step)
        return k, v.roll(step.step.past and 1, -2), index


@plant("relative", "queries are turned in halves, keys in neighbouring pairs")
class TwoLayouts(Rotary):
    """Weights of one layout, code of the other."""

    def rotate(self, q: Tensor, k: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        order = torch.arange(k.shape[-1]).view(-1, 2).T.flatten()
        return self.turn(q, prepared), self.turn(k[..., order], prepared)[..., order.argsort()]


@plant("injective", "positions stop at the length of training")
class StopsCounting(Rotary):
    """clamp."""

    def count(self, positions: Tensor) -> Tensor:
        return super().count(positions).clamp(max=2047)


@plant("bias_of_one_query", "queries are counted from zero in each call (vllm#863 and its kin)")
class CountsByCall(Distance):
    """arange(time)."""

    def apart(self, queries: Tensor, keys: Tensor) -> Tensor:
        here = torch.arange(queries.shape[1]).expand_as(queries)
        return super().apart(here, keys)


@plant("limit_is_kept", "positions beyond the table are given its last row")
class StaysAtTheLast(Table):
    """clamp."""

    def row(self, positions: Tensor) -> Tensor:
        return positions.clamp(max=self.table.shape[0] - 1)


@plant("meta_construction", "the table's size follows the longest position so far, not the context")
class EagerTable(Table):
    """Grows with use; begins on the processor."""

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__(config, geometry)
        with torch.device("cpu"):
            self.table = declare(self, "table", (geometry.context, geometry.dim), ParameterInfo("embedding"))


@plant("deterministic", "the longest document so far decides for all that follow (transformers#25681)")
class LongestSoFar(SlowerWhenLong):
    """History matters."""

    longest = 1

    def times(self, lengths: Tensor) -> Tensor:
        times = super().times(lengths.clamp(min=self.longest))
        self.longest = max(self.longest, int(lengths.max()))
        return times


@plant("one_per_pair", "frequencies are rounded to single precision, which shows far away (transformers#29285)")
class SingleFrequencies(Slower):
    """float32."""

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        return super().frequencies(device, lengths).float()


@plant("formula_of_its_name", "the base is multiplied instead of the wavelength")
class StretchesTheBase(Slower):
    """Fast pairs stay as they are."""

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        usual = self.ladder.frequencies(device)
        place = torch.arange(len(usual), dtype=torch.float64) / len(usual)
        return usual * self.config.factor**-place


@plant(
    "mixture_is_the_weighted_sum",
    "results are written to their tokens, and the second expert's overwrites the first's",
)
class OverwritesTheFirst(Mixture):
    """out[token] = … where out.index_add_ is meant."""

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        flat = x.flatten(0, 1)
        routing, out = self.route(flat), torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = (routing.experts == number).nonzero(as_tuple=True)
            out = out.index_copy(
                0, token, expert(flat[token], step) * routing.weights[token, place, None].to(x.dtype)
            )
        self.report(routing, step)
        return self.with_shared(out.view_as(x), x, step)


@plant("positionwise", "an expert takes so many tokens and drops the rest, first come, first served")
class DropsLateTokens(Mixture):
    """A capacity, in evaluation too."""

    def route(self, x: Tensor) -> Routing:
        routing = super().route(x)
        one_hot = torch.nn.functional.one_hot(routing.experts, 3)
        place = (one_hot.flatten(0, 1).cumsum(0).view_as(one_hot) * one_hot).sum(-1)
        kept = place <= max(1, len(x) // 2)
        return Routing(routing.experts, routing.weights * kept, routing.probabilities, routing.logits)


@plant("pair_of_its_name", "gate and value are swapped, as where a fused map is cut in the other order")
class SwapsGateAndValue(Swish):
    """gate · silu(up)."""

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return super().combine(up, gate)


@plant("formula_of_its_name", "the tanh approximation under the name of the exact function")
class RoughGelu(Swish):
    """5e-4 off."""

    formula = "gelu"

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.gelu(x, approximate="tanh")


@plant("pure", "the input is overwritten to save memory")
class InPlaceSwish(Swish):
    """silu_."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x.mul_(torch.sigmoid(x))


@plant("weights_follow_probabilities", "experts are sorted by number, their weights aren't")
class SortsExperts(BestTwo):
    """sort() of one of two."""

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        weights, experts = super().choose(probabilities)
        return weights, experts.sort(-1).values
