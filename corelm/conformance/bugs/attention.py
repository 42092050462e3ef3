"""Attention that is wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.kinds.attention import Attention, Heads
from corelm.kinds.carriers import LayerContext, LayerStep, SlotSpec
from corelm.kinds.component import ComponentConfig
from corelm.kinds.parameters import Linear, ParameterInfo, declare
from corelm.kinds.position import PositionGeometry


@reference
class TwoHeads(Attention):
    """Softmax attention with two heads, written out."""

    Config = ComponentConfig

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.size = layer.dim // 2
        self.geometry = PositionGeometry(layer.dim, 2, self.size, layer.context)
        self.q, self.k, self.v = (Linear(layer.dim, layer.dim) for _ in range(3))
        self.output = Linear(layer.dim, layer.dim, residual=True)

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Everything."""
        return frozenset({"rotation", "query", "scores", "mask", "softmax"})

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """Keys and values."""
        return {"kv": SlotSpec({"k": (2, self.size), "v": (2, self.size)}, grows=True, window=window)}

    def split(self, x: Tensor) -> Tensor:
        """(batch, heads, time, size)."""
        return x.view(x.shape[0], x.shape[1], 2, self.size).transpose(1, 2)

    def rotate(self, q: Tensor, k: Tensor, step: LayerStep) -> tuple[Tensor, Tensor]:
        """Let positions turn queries and keys."""
        return step.position.rotate(q, k)

    def store(self, k: Tensor, v: Tensor, step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
        """Put the new tokens to the old ones."""
        if step.slots is None:
            return k, v, step.step.index
        view = step.slots["kv"].update(k=k, v=v)
        return view.tensors["k"], view.tensors["v"], view.index

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        """The mask."""
        return step.mask.dense(query, key)

    def biased(self, scores: Tensor, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        """Add what positions add to scores."""
        bias = step.position.scores(query, key)
        return scores if bias is None else scores + self.alike(bias, scores)

    def alike(self, bias: Tensor, scores: Tensor) -> Tensor:
        """In the type of the scores."""
        return bias.to(scores.dtype)

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        """Softmax over what is allowed; nothing where nothing is."""
        return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1) * allowed

    def scaled(self, q: Tensor, step: LayerStep) -> Tensor:
        """Let positions scale queries."""
        return step.position.scale_query(q)

    def project(self, x: Tensor, step: LayerStep) -> Heads:
        """Queries, keys and values."""
        q, k = self.rotate(self.split(self.q(x)), self.split(self.k(x)), step)
        return Heads(self.scaled(q, step), k, self.split(self.v(x)), self.size**-0.5)

    def finish(self, mixed: Tensor, x: Tensor) -> Tensor:
        """The last map."""
        y: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return y

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        """Mix."""
        heads = self.project(x, step)
        k, v, keys = self.store(heads.k, heads.v, step)
        scores = heads.q @ k.transpose(-1, -2) * heads.scale
        scores = self.biased(scores, step.step.index, keys, step)
        return self.finish(self.weights(scores, self.allowed(step.step.index, keys, step)) @ v, x)


@reference
class DecayingSum(Attention):
    """A recurrent mixer: the state halves and takes the new value in."""

    Config = ComponentConfig

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.value, self.output = Linear(layer.dim, layer.dim), Linear(layer.dim, layer.dim, residual=True)

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Recurrent."""
        return frozenset({"recurrent"})

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """One vector and the document that it is of."""
        return {"sum": SlotSpec({"state": (self.layer.dim,), "document": (1,)}, grows=False)}

    def before(self, x: Tensor, step: LayerStep) -> tuple[Tensor, Tensor]:
        """State and document so far."""
        view = step.slots["sum"].view() if step.slots else None
        if view is not None:
            return view.tensors["state"], view.tensors["document"][:, 0]
        wide = torch.promote_types(x.dtype, torch.float32)
        return x.new_zeros(x.shape[0], x.shape[2], dtype=wide), torch.full((x.shape[0],), -1, device=x.device)

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        """Token by token."""
        values, (state, document) = self.value(x), self.before(x, step)
        documents, valid = step.step.new_documents(), step.step.new_valid()
        outputs = []
        for t in range(x.shape[1]):
            now = torch.zeros_like(document) if documents is None else documents[:, t]
            new = self.moved(state, now != document, values[:, t])
            real = torch.ones_like(now, dtype=torch.bool) if valid is None else valid[:, t]
            state = torch.where(real[:, None], new, state)
            document = torch.where(real, now, document)
            outputs.append(state)
        if step.slots:
            step.slots["sum"].update(state=state, document=document[:, None])
        return self.output(torch.stack(outputs, 1).to(x.dtype))

    def moved(self, state: Tensor, fresh: Tensor, value: Tensor) -> Tensor:
        """Forget where a document begins, halve, add."""
        return state * ~fresh[:, None] * 0.5 + value


@plant("causal", "the mask adds −1e4, which sharp softmaxes see through")
class FiniteMask(TwoHeads):
    """Additive mask."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        return (scores - 1e4 * ~allowed).softmax(-1) * allowed.any(-1, keepdim=True)


@plant("causal", "the diagonal is one too high")
class SeesOneAhead(TwoHeads):
    """Off by one."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        return step.mask.dense(query, key) | (key == query[:, None] + 1)


@plant("looks_at_all_of_the_past", "the token itself is left out")
class StrictlyCausal(TwoHeads):
    """Diagonal −1."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        return step.mask.dense(query, key) & ((key != query[:, None]) | (query[:, None] == 0))


@plant("cached_equals_full", "the mask of a later call forgets how long the past is (transformers#25420)")
class ForgetsThePast(TwoHeads):
    """No offset."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        return step.mask.dense(query - step.step.past, key)


@plant("cached_equals_full", "only the newest call is stored")
class StaleCache(TwoHeads):
    """Forgets."""

    def store(self, k: Tensor, v: Tensor, step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
        super().store(k, v, step)
        return k, v, step.step.index


@plant("rows_are_independent", "the softmax sees the largest score of the whole batch, with a floor")
class BatchStatistics(TwoHeads):
    """Mean over rows."""

    def scaled(self, q: Tensor, step: LayerStep) -> Tensor:
        return q + 0.01 * q.mean(0, keepdim=True)


@plant("padding_is_invisible", "padding is attended to, on the left above all (transformers#25420)")
class IgnoresPadding(TwoHeads):
    """Only causality."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        documents = step.step.documents
        same = True if documents is None else documents[:, query, None] == documents[:, None, key]
        return ((key <= query[:, None]) & same)[..., None, :, :] if documents is not None else (key <= query[:, None])


@plant("padding_is_invisible", "a query that may look at nothing is NaN (pytorch#103749)")
class NothingIsNan(TwoHeads):
    """−inf everywhere."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        return scores.masked_fill(~allowed, -torch.inf).softmax(-1)


@plant("padded_rows_continue", "padding is hidden in the first call only")
class PaddingForgotten(TwoHeads):
    """The cache knows no padding."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        causal = (key <= query[:, None])[None, None]
        return step.mask.dense(query, key) if step.step.past == 0 else causal


@plant("packed_equals_separate", "documents look at each other (nanoVLM#204)")
class AcrossDocuments(TwoHeads):
    """Positions restart, attention doesn't."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        valid = step.step.valid
        causal = (key <= query[:, None])[None, None]
        return causal if valid is None else causal & valid[:, None, None, key]


@plant("packed_equals_separate", "the state is carried into the next document")
class CarriesOver(DecayingSum):
    """Never starts afresh."""

    def moved(self, state: Tensor, fresh: Tensor, value: Tensor) -> Tensor:
        return state * 0.5 + value


@plant("window_is_exact", "the window is one token too wide: ≤ where < is meant")
class WindowOffByOne(TwoHeads):
    """w + 1."""

    def allowed(self, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        allowed = step.mask.dense(query, key)
        window = step.mask.window
        return allowed if window is None else allowed | (query[:, None] - key == window)


@plant("permutation_equivariant", "the newest key weighs a little more")
class HiddenOrder(TwoHeads):
    """Depends on position."""

    def biased(self, scores: Tensor, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        return super().biased(scores, query, key, step) + 0.01 * key


@plant("weights_sum_to_one", "exp without the division")
class Unnormalised(TwoHeads):
    """No denominator."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        return (scores - 4).clamp(max=50).exp() * allowed


@plant("no_query_gives_the_mean", "the query hook is never called")
class NoQueryHook(TwoHeads):
    """Undelivered capability."""

    def scaled(self, q: Tensor, step: LayerStep) -> Tensor:
        return q


@plant("rotation_is_used", "only queries are turned")
class TurnsQueriesOnly(TwoHeads):
    """Half a rotation."""

    def rotate(self, q: Tensor, k: Tensor, step: LayerStep) -> tuple[Tensor, Tensor]:
        return step.position.rotate(q, k)[0], k


@plant("score_bias_is_used", "the bias is added to weights rather than to scores")
class BiasAfterSoftmax(TwoHeads):
    """Too late."""

    def biased(self, scores: Tensor, query: Tensor, key: Tensor, step: LayerStep) -> Tensor:
        self.__dict__["late"] = step.position.scores(query, key)
        return scores

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        late = self.__dict__["late"]
        weights = super().weights(scores, allowed)
        return weights if late is None else weights + 1e-3 * late.to(weights.dtype)


@plant("score_bias_is_used", "a bias of float32 makes weights of float32, and values are of another type")
class WideBias(TwoHeads):
    """Works in float32."""

    def alike(self, bias: Tensor, scores: Tensor) -> Tensor:
        return bias


@plant("large_inputs_are_finite", "the exponential of raw scores, without their maximum subtracted")
class RawExponential(TwoHeads):
    """Overflows."""

    def weights(self, scores: Tensor, allowed: Tensor) -> Tensor:
        raw = scores.exp() * allowed
        return raw / raw.sum(-1, keepdim=True)


@plant("state_rows_can_be_selected", "keys are kept on the module instead of in the slot")
class StateOnTheModule(TwoHeads):
    """Hides state."""

    def store(self, k: Tensor, v: Tensor, step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
        k, v, index = super().store(k, v, step)
        if step.step.past and "kept" in self.__dict__ and len(self.__dict__["kept"]) != len(k):
            k = torch.cat(
                [self.__dict__["kept"][:1].expand(len(k), -1, -1, -1)[..., : step.step.past, :], k[..., -1:, :]], -2
            )
        self.__dict__["kept"] = k.detach()
        return k, v, index


@plant("state_goes_back_or_stays_small", "a fixed state that isn't declared as recurrent")
class UndeclaredRecurrence(DecayingSum):
    """Can't go back, and doesn't say so."""

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        return frozenset()


@plant("padding_leaves_the_state", "the state halves at padding as well")
class PaddingDecays(DecayingSum):
    """Writes nothing, and still forgets."""

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        y, valid = super().forward(x, step), step.step.new_valid()
        view = step.slots["sum"].view() if step.slots else None
        if step.slots and view is not None and valid is not None:
            state = view.tensors["state"] * 0.5 ** (~valid).sum(1, keepdim=True)
            step.slots["sum"].update(state=state, document=view.tensors["document"])
        return y


@plant("fixed_state_is_wide", "the state has the type of the activations")
class NarrowState(DecayingSum):
    """Rounds at every token."""

    def before(self, x: Tensor, step: LayerStep) -> tuple[Tensor, Tensor]:
        state, document = super().before(x, step)
        return state.to(x.dtype), document


@plant("state_can_be_put_back", "the stored state is updated in place")
class WritesInPlace(DecayingSum):
    """Saves an allocation."""

    def moved(self, state: Tensor, fresh: Tensor, value: Tensor) -> Tensor:
        return state.mul_(~fresh[:, None]).mul_(0.5).add_(value)


@plant("not_a_stub")
class LearnedConstant(TwoHeads):
    """Ignores its input."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.constant = declare(self, "constant", (layer.dim,), ParameterInfo("vector", constant=0.0))

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        return self.constant.expand_as(x)


@plant("residual_maps_come_last", "the value map says that it adds to the residual stream, too")
class TwoResidualMaps(TwoHeads):
    """Begins too small in deep models."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.v = Linear(layer.dim, layer.dim, residual=True)
