"""The stack: embedding, position schemes, layers, final norm; everything of a model but its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corelm.kinds.block import Block, BlockParts, Connection
from corelm.kinds.carriers import LayerContext, LayerStep, ModelContext, SlotSpec, Step
from corelm.kinds.component import Spec
from corelm.kinds.embedding import Embedding
from corelm.kinds.mask import Mask, MaskFacts, MaskView
from corelm.kinds.norm import Norm
from corelm.kinds.position import Position, PositionGeometry, PositionView
from corelm.model.config import LayerConfig, ModelConfig
from corelm.model.state import State


class Stack(nn.Module):
    """Token ids to final hidden states.

    Position schemes are built once per config and geometry and shared by the layers that name them; so are masks.

    Attributes:
        config: the resolved model section.
        facts: sizes that the parts were built with.
        schemes: of each layer, names into ``positions``.
        rules: of each layer, what its mask consists of; the same list where layers have equal masks.
        slot_specs: of each layer, what it stores.
        recurrent: whether some layer's state has a fixed size.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.facts = ModelContext(config.dim, config.layers, config.context, vocab_size)
        self.embedding: Embedding = config.embedding.build(self.facts)
        self.positions = nn.ModuleDict()
        self.layers = nn.ModuleList()
        self.schemes: list[tuple[str, ...]] = []
        self.rules: list[list[Mask]] = []
        self.slot_specs: list[Mapping[str, SlotSpec]] = []
        self.recurrent = False
        self._interned: dict[tuple[Any, ...], str] = {}
        self._rules: dict[tuple[Any, ...], list[Mask]] = {}
        resolved = config.resolved()
        for index, (layer, name) in enumerate(zip(resolved, config.layer_names(), strict=True)):
            self._add_layer(layer, LayerContext(*_sizes(self.facts), index=index, block=name))
        last = LayerContext(*_sizes(self.facts), index=config.layers)
        ends = resolved[-1].connection if resolved else config.connection
        self.connection: Connection = ends.build(last)
        norm = config.final_norm or config.norm
        self.final_norm: Norm | None = norm.build(config.dim) if config.normed else None

    def _add_layer(self, layer: LayerConfig, context: LayerContext) -> None:
        attention = layer.attention.build(context) if layer.attention else None
        feedforward = layer.feedforward.build(context) if layer.feedforward else None
        parts = BlockParts(attention, feedforward, layer.norm.build, layer.connection.build(context))
        block: Block = layer.block.build(context, parts)
        self.layers.append(block)
        geometry = attention.geometry if attention is not None else None
        self.schemes.append(tuple(name for spec in layer.position if (name := self._intern(spec, geometry))))
        key = tuple(layer.mask)
        if key not in self._rules:
            self._rules[key] = [rule.build() for rule in layer.mask]
        self.rules.append(self._rules[key])
        window = MaskView(self._rules[key]).window
        self.slot_specs.append(attention.slots(window) if attention is not None else {})
        if layer.attention is not None and "recurrent" in layer.attention.offers():
            self.recurrent = True

    def _intern(self, spec: Spec[Position], geometry: PositionGeometry | None) -> str:
        """Name of the one module for this scheme, empty where nothing in the layer would call it.

        Schemes that act on the embeddings alone are one module whatever the layer's attention is like.
        """
        if spec.part.hooks <= {"embedding"}:
            geometry = PositionGeometry(self.facts.dim, 1, self.facts.dim, self.facts.context)
        if geometry is None and "embedding" not in spec.part.hooks:
            return ""
        geometry = geometry or PositionGeometry(self.facts.dim, 1, self.facts.dim, self.facts.context)
        key = (spec, geometry)
        if key not in self._interned:
            taken = sum(name.partition("-at-")[0] == spec.name for name in self.positions)
            name = f"{spec.name}-at-{taken + 1}" if taken else spec.name
            self.positions[name] = spec.build(geometry)
            self._interned[key] = name
        return self._interned[key]

    @property
    def position_limit(self) -> int | None:
        """Positions that all schemes can represent; None: any."""
        limits = [scheme.limit for scheme in self._schemes().values() if scheme.limit is not None]
        return min(limits, default=None)

    @property
    def constant_up_to(self) -> int | None:
        """Tokens of a document up to which no scheme looks at its length; None: none ever does."""
        lengths = [s.constant_up_to for s in self._schemes().values() if s.constant_up_to is not None]
        return min(lengths, default=None)

    def _schemes(self) -> dict[str, Position]:
        return {name: scheme for name, scheme in self.positions.items() if isinstance(scheme, Position)}

    def forward(
        self,
        ids: Int[Tensor, "batch time"],
        *,
        valid: Bool[Tensor, "batch time"] | None = None,
        documents: Int[Tensor, "batch time"] | None = None,
        state: State | None = None,
        auxiliary: dict[str, list[Tensor]] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Final hidden states of the new tokens."""
        step = begin(ids, valid, documents, state)
        if auxiliary is not None:
            step.auxiliary = auxiliary
        x = self.embedding(ids)
        new_positions = step.positions[:, step.past :]
        schemes = self._schemes()
        for scheme in schemes.values():
            x = scheme.embed(x, new_positions)
        streams = self.connection.enter(x)
        streams = self.run(streams, self.prepare(step, state, new_positions), 0, len(self.layers))
        x = self.connection.exit(streams)
        if state is not None:
            state.length, state.positions = step.past + ids.shape[1], step.positions
            state.valid, state.documents = step.valid, step.documents
        return x if self.final_norm is None else self.final_norm(x)

    def prepare(self, step: Step, state: State | None, new_positions: Tensor) -> list[LayerStep]:
        """Every layer's view of the step; position tables and masks are made once per name."""
        schemes = self._schemes()
        lengths = None if self.constant_up_to is None else document_lengths(step)
        tables = {
            name: scheme.prepare(new_positions)
            if scheme.constant_up_to is None
            else scheme.prepare(new_positions, lengths)
            for name, scheme in schemes.items()
        }
        as_index = step.valid is None and step.documents is None
        facts = MaskFacts(step.documents, step.valid, None if as_index else step.positions, step.positions.shape[1])
        position_views: dict[tuple[str, ...], PositionView] = {}
        mask_views: dict[int, MaskView] = {}
        steps = []
        for layer, (names, rules) in enumerate(zip(self.schemes, self.rules, strict=True)):
            if names not in position_views:
                chosen = [(schemes[name], tables[name]) for name in names]
                position_views[names] = PositionView(chosen, step.positions)
            mask = mask_views.setdefault(id(rules), MaskView(rules, facts))
            steps.append(LayerStep(step, position_views[names], mask, None if state is None else state.slots(layer)))
        return steps

    def run(self, streams: Tensor, steps: Sequence[LayerStep], first: int, last: int) -> Tensor:
        """Run the layers ``first`` to ``last − 1``."""
        for layer in range(first, last):
            streams = self.layers[layer](streams, steps[layer])
        return streams


def _sizes(facts: ModelContext) -> tuple[int, int, int, int]:
    return facts.dim, facts.depth, facts.context, facts.vocab_size


def begin(ids: Tensor, valid: Tensor | None, documents: Tensor | None, state: State | None) -> Step:
    """The step of one forward: what is new, joined with what the state knows of the tokens before.

    Raises:
        ValueError: the state is of another number of rows.
    """
    batch, time = ids.shape
    if state is not None and state.batch != batch:
        raise ValueError(f"{batch} rows can't continue a state of {state.batch}")
    past = 0 if state is None else state.length
    index = torch.arange(past, past + time, device=ids.device)
    if state is not None and past:
        valid = _joined(state.valid, valid, past, ids)
        if documents is not None or state.documents is not None:
            documents = _joined_documents(state.documents, documents, past, ids)
    if valid is not None and documents is not None:
        documents = _filled(documents, valid)
    if valid is None and documents is None:
        positions = torch.arange(past + time, device=ids.device).expand(batch, -1)
    else:
        positions = _positions(valid, documents, batch, past + time, ids.device)
    return Step(ids, index, positions, valid, documents, past)


def document_lengths(step: Step) -> Int[Tensor, "batch time"]:
    """Real tokens of each new token's document, as far as they are known: those of the past and of this call."""
    batch, total = step.positions.shape
    if step.documents is None:
        longest = step.positions.amax(1, keepdim=True) + 1
        return longest.expand(batch, total - step.past)
    of_document = (step.documents[:, 1:] != step.documents[:, :-1]).long().cumsum(1)
    of_document = torch.cat([torch.zeros_like(step.documents[:, :1], dtype=torch.long), of_document], 1)
    longest = torch.zeros_like(step.positions).scatter_reduce(1, of_document, step.positions + 1, "amax")
    return longest.gather(1, of_document[:, step.past :])


def _joined(before: Tensor | None, new: Tensor | None, past: int, ids: Tensor) -> Tensor | None:
    """Which tokens are real, before and now; None where all are."""
    if before is None and new is None:
        return None
    parts = (before, ids.shape[0], past), (new, ids.shape[0], ids.shape[1])
    return torch.cat(
        [torch.ones(rows, time, dtype=torch.bool, device=ids.device) if p is None else p for p, rows, time in parts],
        1,
    )


def _joined_documents(before: Tensor | None, new: Tensor | None, past: int, ids: Tensor) -> Tensor:
    """Tokens without a document continue the last one; tokens before the first document belong to it."""
    if new is None:
        assert before is not None
        new = before[:, -1:].expand(-1, ids.shape[1])
    if before is None:
        before = new[:, :1].expand(-1, past)
    return torch.cat([before, new], dim=1)


def _filled(documents: Tensor, valid: Tensor) -> Tensor:
    """Padding belongs to the document of the real token before it, so that a document goes on after it."""
    place = torch.arange(documents.shape[1], device=documents.device)
    return documents.gather(1, torch.where(valid, place, -1).cummax(1).values.clamp(min=0))


def _positions(
    valid: Tensor | None, documents: Tensor | None, batch: int, total: int, device: torch.device
) -> Int[Tensor, "batch total"]:
    """Number of real tokens before each one in its document.

    Padding has the position of the real token before it (0 where there is none), which any scheme can represent.
    """
    real = torch.ones(batch, total, dtype=torch.long, device=device) if valid is None else valid.long()
    count = real.cumsum(1)
    if documents is None:
        return (count - 1).clamp(min=0)
    starts = torch.ones(batch, total, dtype=torch.bool, device=device)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return (count - 1 - torch.where(starts, count - real, 0).cummax(1).values).clamp(min=0)
