"""What the tests of model parts share: building parts with drawn parameters, steps, and slots kept in memory."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from corelm.kinds import (
    LayerContext,
    LayerStep,
    MaskFacts,
    MaskView,
    Position,
    PositionView,
    SlotSpec,
    SlotView,
    Spec,
    Step,
    declared,
)

EXACT = {"atol": 1e-10, "rtol": 1e-10}
HEADS = st.sampled_from([(4, 4), (4, 2), (4, 1), (3, 1), (6, 3)])  # of queries, of keys and values


def layer(dim: int = 16, context: int = 64) -> LayerContext:
    return LayerContext(dim=dim, depth=2, context=context, vocab_size=0)


def build(kind: str, value: Any, *context: Any, seed: int = 0, scale: float = 1.0) -> Any:
    """A part in float64 and evaluation mode, parameters drawn with variance scale²/fan_in."""
    part = Spec.read(kind, value).build(*context)
    if not isinstance(part, nn.Module):
        return part
    generator = torch.Generator().manual_seed(seed)
    part.double()
    with torch.no_grad():
        for _, parameter, info in declared(part):
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            parameter.mul_(scale / max(info.fan_in, 1) ** 0.5)
    return part.eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positions_of(valid: Tensor | None, documents: Tensor | None, batch: int, time: int) -> Tensor:
    """Position of every token in its document, counting real tokens only."""
    positions = torch.zeros(batch, time, dtype=torch.long)
    for row in range(batch):
        count, current = 0, None
        for t in range(time):
            if valid is not None and not valid[row, t]:
                continue
            document = None if documents is None else int(documents[row, t])
            count = 0 if document != current else count
            current = document
            positions[row, t] = count
            count += 1
    return positions


class FakeSlot:
    """Storage that keeps everything (or the last ``window`` tokens before a call) in plain tensors."""

    def __init__(self, spec: SlotSpec) -> None:
        self.spec, self.kept, self.first, self.length = spec, {}, 0, 0

    def update(self, **tensors: Tensor) -> SlotView:
        if not self.spec.grows:
            self.kept = dict(tensors)
            return self.view()
        if self.spec.window is not None and self.kept:
            stored = next(iter(self.kept.values())).shape[-2]
            drop = max(0, stored - (self.spec.window - 1))
            self.kept = {name: kept[..., drop:, :] for name, kept in self.kept.items()}
            self.first += drop
        self.kept = {
            name: torch.cat((self.kept[name], new), -2) if self.kept else new for name, new in tensors.items()
        }
        return self.view()

    def view(self) -> SlotView | None:
        if not self.kept:
            return None
        if not self.spec.grows:
            return SlotView(self.kept, torch.empty(0, dtype=torch.long))
        stored = next(iter(self.kept.values())).shape[-2]
        return SlotView(self.kept, torch.arange(self.first, self.first + stored))


class Hot(Position):
    """Doubles queries, and more so later in the row; the least scheme with the hook ``query``."""

    hooks = frozenset({"query"})

    def prepare(self, positions: Tensor, lengths: Tensor | None = None) -> Tensor:
        return 2.0 + positions[:, None, :, None]

    def scale_query(self, q: Tensor, prepared: Tensor) -> Tensor:
        return q * prepared


class Setting:
    """One layer's surroundings: position parts, masks, facts; makes steps for any slice of the tokens."""

    def __init__(
        self,
        part: Any,
        position: list[Any] = (),
        mask: list[Any] = ("causal", "documents"),
        valid: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> None:
        self.schemes = [build("position", p, part.geometry, seed=5) for p in position]
        self.rules = [Spec.read("mask", m).build() for m in mask]
        self.valid, self.documents, self.part = valid, documents, part

    def step(self, batch: int, past: int, upto: int, slots: dict[str, FakeSlot] | None = None) -> LayerStep:
        valid = None if self.valid is None else self.valid[:, :upto]
        documents = None if self.documents is None else self.documents[:, :upto]
        positions = positions_of(valid, documents, batch, upto)
        prepared = [(scheme, scheme.prepare(positions[:, past:])) for scheme in self.schemes]
        step = Step(
            ids=torch.zeros(batch, upto - past, dtype=torch.long),
            index=torch.arange(past, upto),
            positions=positions,
            valid=valid,
            documents=documents,
            past=past,
        )
        view = MaskView(self.rules, MaskFacts(documents, valid, positions, upto))
        return LayerStep(step, PositionView(prepared, positions), view, slots)

    def run(self, x: Tensor) -> Tensor:
        return self.part(x, self.step(len(x), 0, x.shape[1]))

    def cached(self, x: Tensor, splits: list[int]) -> Tensor:
        """Feed ``x`` in pieces of these lengths through fresh slots."""
        window = MaskView(self.rules).window
        slots = {name: FakeSlot(spec) for name, spec in self.part.slots(window).items()}
        outputs, past = [], 0
        for length in splits:
            step = self.step(len(x), past, past + length, slots)
            outputs.append(self.part(x[:, past : past + length], step))
            past += length
        return torch.cat(outputs, 1)
