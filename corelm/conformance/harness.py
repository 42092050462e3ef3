"""The little that parts need around them when they are tested alone: masks, positions, state, steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from corelm.kinds.attention import Attention
from corelm.kinds.block import Connection
from corelm.kinds.carriers import LayerContext, LayerStep, ModelContext, SlotSpec, SlotView, Step
from corelm.kinds.component import ComponentConfig
from corelm.kinds.embedding import Embedding
from corelm.kinds.feedforward import FeedForward
from corelm.kinds.mask import Mask, MaskFacts, MaskView
from corelm.kinds.norm import Norm
from corelm.kinds.parameters import Linear, ParameterInfo, declare
from corelm.kinds.position import Hook, Position, PositionGeometry, PositionView


class Past(Mask):
    """No key after the query."""

    causal = True

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        """The triangle."""
        return (key <= query[:, None])[None]

    def trivial(self, facts: MaskFacts) -> bool:
        """Always."""
        return True


class SameDocument(Mask):
    """Query and key belong to one document."""

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        """Compare the documents."""
        if facts.documents is None:
            return torch.ones(1, len(query), len(key), dtype=torch.bool, device=query.device)
        return facts.documents[:, query, None] == facts.documents[:, None, key]

    def trivial(self, facts: MaskFacts) -> bool:
        """Where no documents are told apart."""
        return facts.documents is None


class Nearby(Mask):
    """A query looks back at most ``window`` tokens, itself included."""

    def __init__(self, window: int) -> None:
        super().__init__(ComponentConfig())
        self.window = window

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        """Distance below the window."""
        assert self.window is not None
        return ((query[:, None] - key) < self.window)[None]

    def trivial(self, facts: MaskFacts) -> bool:
        """Never."""
        return False


class Everything(Mask):
    """All pairs: bidirectional."""

    def allows(self, query: Tensor, key: Tensor, facts: MaskFacts) -> Tensor:
        """Yes."""
        return torch.ones(1, len(query), len(key), dtype=torch.bool, device=query.device)

    def trivial(self, facts: MaskFacts) -> bool:
        """Never: the future is allowed as well."""
        return False


class Turning(Position):
    """Turns pairs of features by the position times a frequency."""

    hooks: ClassVar[frozenset[Hook]] = frozenset({"rotation"})

    def prepare(self, positions: Tensor, lengths: Tensor | None = None) -> Any:
        """Angles."""
        half = self.geometry.head_dim // 2
        frequency = 0.7 ** torch.arange(half, dtype=torch.float64)
        return positions[:, None, :, None].double() * frequency

    def rotate(self, q: Tensor, k: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        """Turn the first and the second half of each head against each other."""
        return self._turn(q, prepared), self._turn(k, prepared)

    def _turn(self, x: Tensor, angle: Tensor) -> Tensor:
        half = angle.shape[-1]
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


class QueryFactor(Position):
    """Multiplies queries by a number."""

    hooks: ClassVar[frozenset[Hook]] = frozenset({"query"})
    factor = 0.0

    def scale_query(self, q: Tensor, prepared: Any) -> Tensor:
        """Scale."""
        return q * self.factor


class ScoreBias(Position):
    """Adds ``row · position of the query + column · [position of the key == at]`` to the scores."""

    hooks: ClassVar[frozenset[Hook]] = frozenset({"score"})

    def __init__(self, geometry: PositionGeometry, row: float = 0.0, column: float = 0.0, at: int = 0) -> None:
        super().__init__(ComponentConfig(), geometry)
        self.row, self.column, self.at = row, column, at

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        """Bias of every pair, the same for all heads."""
        bias = self.row * queries[:, None, :, None] + self.column * (keys == self.at)[:, None, None, :]
        return bias.float().expand(-1, self.geometry.heads, -1, -1)


class Shelf:
    """Storage of one slot in the plainest way."""

    def __init__(self, spec: SlotSpec) -> None:
        self.spec = spec
        self.tensors: dict[str, Tensor] = {}
        self.index = torch.zeros(0, dtype=torch.long)
        self.seen = 0

    def update(self, **tensors: Tensor) -> SlotView:
        """Append or replace; a window is kept only after the call's own tokens have looked."""
        assert set(tensors) == set(self.spec.fields), f"stores {sorted(tensors)}, declared {sorted(self.spec.fields)}"
        for name, tensor in tensors.items():
            declared = tuple(self.spec.fields[name])
            shape = (*tensor.shape[1:-2], tensor.shape[-1]) if self.spec.grows else tuple(tensor.shape[1:])
            assert shape == declared, f"slot field {name} declares rows of {declared}, but stores {shape}"
        if not self.spec.grows:
            self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            return self._view()
        new = next(iter(tensors.values())).shape[-2]
        index = torch.cat([self.index, torch.arange(self.seen, self.seen + new)])
        joined = {n: torch.cat([self.tensors[n], t], -2) if n in self.tensors else t for n, t in tensors.items()}
        # A query of this call looks back window − 1 tokens at most, so older ones may go only now.
        keep = len(index) if self.spec.window is None else min(len(index), self.spec.window - 1 + new)
        self.seen += new
        self.tensors = {n: t[..., t.shape[-2] - keep :, :] for n, t in joined.items()}
        self.index = index[len(index) - keep :]
        return self._view()

    def view(self) -> SlotView | None:
        """What is stored."""
        return self._view() if self.tensors else None

    def _view(self) -> SlotView:
        return SlotView(dict(self.tensors), self.index if self.spec.grows else torch.zeros(0, dtype=torch.long))

    def select(self, rows: Tensor) -> None:
        """Keep these rows."""
        self.tensors = {n: t[rows] for n, t in self.tensors.items()}

    def truncate(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        kept = self.index < length
        self.tensors = {n: t[..., kept, :] for n, t in self.tensors.items()}
        self.index, self.seen = self.index[kept], length


def positions_of(valid: Tensor | None, documents: Tensor | None, batch: int, total: int) -> Tensor:
    """Position of every token in its document; padding is skipped."""
    if valid is None and documents is None:
        return torch.arange(total).repeat(batch, 1)
    real = torch.ones(batch, total, dtype=torch.bool) if valid is None else valid
    result = torch.zeros(batch, total, dtype=torch.long)
    for row in range(batch):
        counts: dict[int, int] = {}
        for t in range(total):
            if real[row, t]:
                key = 0 if documents is None else int(documents[row, t])
                result[row, t] = counts.get(key, 0)
                counts[key] = counts.get(key, 0) + 1
    return result


def layer_step(
    batch: int,
    time: int,
    *,
    rules: Sequence[Mask] | None = None,
    schemes: Sequence[Position] = (),
    valid: Tensor | None = None,
    documents: Tensor | None = None,
    past: int = 0,
    slots: Mapping[str, Shelf] | None = None,
    shift: int = 0,
    device: torch.device | None = None,
) -> LayerStep:
    """A layer's view of one call; ``valid`` and ``documents`` cover past and new tokens."""
    total = past + time
    index = torch.arange(past, total, device=device)
    positions = (positions_of(valid, documents, batch, total) + shift).to(index.device)
    ids = torch.zeros(batch, time, dtype=torch.long, device=device)
    step = Step(ids, index, positions, valid, documents, past)
    rules = [Past(ComponentConfig()), SameDocument(ComponentConfig())] if rules is None else list(rules)
    prepared = [(scheme, scheme.prepare(positions[:, past:])) for scheme in schemes]
    facts = MaskFacts(documents, valid, positions, total)
    return LayerStep(step, PositionView(prepared, positions), MaskView(rules, facts), slots)


def causal_rules(window: int | None = None) -> list[Mask]:
    """The usual rules, perhaps with a window."""
    rules: list[Mask] = [Past(ComponentConfig()), SameDocument(ComponentConfig())]
    return rules if window is None else [*rules, Nearby(window)]


class PlainEmbedding(Embedding):
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


class PlainNorm(Norm):
    """Divides by the root mean square."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.weight = declare(self, "weight", (dim,), ParameterInfo("norm", constant=1.0))

    @property
    def epsilon(self) -> float:
        """Small."""
        return 1e-6

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return x * (x.square().mean(-1, keepdim=True) + self.epsilon).rsqrt() * self.weight


class AddTo(Connection):
    """One stream; results are added."""

    def enter(self, embedding: Tensor) -> Tensor:
        """As it is."""
        return embedding

    def read(self, streams: Tensor) -> Tensor:
        """As it is."""
        return streams

    def write(self, streams: Tensor, y: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """Add."""
        return (streams if keep is None else keep) + y

    def exit(self, streams: Tensor) -> Tensor:
        """As it is."""
        return streams


class TokenwiseAttention(Attention):
    """Mixes nothing: a map per token, so that any mixing is the block's."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.map, self.calls = Linear(layer.dim, layer.dim, residual=True), 0
        self.steps: list[LayerStep] = []

    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """None."""
        return {}

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        """Apply the map."""
        self.calls += 1
        self.steps.append(step)
        y: Tensor = self.map(x)
        return y


class TokenwiseFeedForward(FeedForward):
    """A map per token."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.map, self.calls = Linear(layer.dim, layer.dim, residual=True), 0
        self.steps: list[LayerStep] = []

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        """Apply the map."""
        self.calls += 1
        self.steps.append(step)
        y: Tensor = self.map(x)
        return y
