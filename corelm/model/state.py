"""What a model keeps of the sequences so far: slots whose storage the caller chooses, the length tracked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds.carriers import Slot, SlotSpec, SlotView

STORAGES: Final = ("growing", "static")

FIRST_CAPACITY = 64
"""Tokens that a growing slot has room for at first."""


class State:
    """The state of a batch of sequences.

    Attributes:
        length: tokens so far, padding included; the same for all rows.
        layers: slots of each layer, by name.
        valid, documents, positions: of the tokens so far, ``(batch, length)``; the first two may be None.
    """

    def __init__(self, layers: list[Mapping[str, SlotSpec]], batch: int, capacity: int | None, storage: str) -> None:
        if storage not in STORAGES:
            raise UserError(
                f"unknown storage {storage!r}", remedy=f"Choose one of {', '.join(STORAGES)}.", code="unknown-storage"
            )
        if storage == "static" and capacity is None:
            raise UserError("static storage needs a capacity", remedy="Give capacity, in tokens.", code="no-capacity")
        self.batch = batch
        self.length = 0
        self.valid: Bool[Tensor, "batch total"] | None = None
        self.documents: Int[Tensor, "batch total"] | None = None
        self.positions: Int[Tensor, "batch total"] | None = None
        self._indices: dict[tuple[int, torch.device], Int[Tensor, " stored"]] = {}
        self._indexed_to = 0
        fixed = capacity if storage == "static" else None
        self.layers: list[dict[str, GrowingSlot | FixedSlot]] = [
            {name: GrowingSlot(spec, self, fixed) if spec.grows else FixedSlot(spec) for name, spec in specs.items()}
            for specs in layers
        ]

    def slots(self, layer: int) -> Mapping[str, Slot]:
        """Slots of one layer."""
        return self.layers[layer]

    def index(self, start: int, end: int, device: torch.device) -> Int[Tensor, " stored"]:
        """Absolute indices from ``start`` to ``end − 1``: one tensor for all slots that hold the same tokens.

        Masks and biases know by it what they have already made for another layer.
        """
        if end != self._indexed_to:
            self._indices, self._indexed_to = {}, end
        key = start, device
        if key not in self._indices:
            self._indices[key] = torch.arange(start, end, device=device)
        return self._indices[key]

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep, repeat or reorder rows."""
        for slot in self._all():
            slot.select(rows)
        self.batch = len(rows)
        for name in ("valid", "documents", "positions"):
            kept = getattr(self, name)
            setattr(self, name, None if kept is None else kept[rows])

    def truncate(self, length: int) -> None:
        """Forget all tokens from ``length`` on.

        Raises:
            UserError: a slot can't go back: a fixed-size state, or a window that has dropped what it would need.
        """
        if not 0 <= length <= self.length:
            raise UserError(f"can't truncate {self.length} tokens to {length}", code="truncate-length")
        if length < self.length:
            for slot in self._all():
                slot.check_truncation(length)
        self.length = length
        for name in ("valid", "documents", "positions"):
            kept = getattr(self, name)
            setattr(self, name, None if kept is None else kept[:, :length])

    def reset(self) -> None:
        """Forget everything."""
        self.length = 0
        self.valid = self.documents = self.positions = None
        for slot in self._all():
            slot.reset()

    def snapshot(self) -> State:
        """An independent copy."""
        copy = State([], self.batch, None, "growing")
        copy.length = self.length
        copy.valid, copy.documents, copy.positions = self.valid, self.documents, self.positions
        copy.layers = [{name: slot.copy(copy) for name, slot in layer.items()} for layer in self.layers]
        return copy

    def _all(self) -> list[GrowingSlot | FixedSlot]:
        return [slot for layer in self.layers for slot in layer.values()]


class GrowingSlot:
    """Tokens one after the other, in one buffer per field.

    The buffer doubles when it is full, or has a fixed capacity. With a window, tokens that no coming query can
    look at are dropped.

    Args:
        spec: what is stored.
        owner: knows the length.
        capacity: tokens that fit at once; None: as many as come.
    """

    def __init__(self, spec: SlotSpec, owner: State, capacity: int | None) -> None:
        self.spec = spec
        self.owner = owner
        self.capacity = capacity
        self.buffers: dict[str, Tensor] = {}
        self.base = 0
        """Absolute index of the buffers' first place."""
        self.start = 0
        """Absolute index of the first token that is still stored."""

    def update(self, **tensors: Tensor) -> SlotView:
        """Append tokens, ``(batch, *shape without its last axis, new, last)``."""
        first = self.owner.length
        end = first + next(iter(tensors.values())).shape[-2]
        if self.spec.window is not None:
            self.start = max(self.start, first - self.spec.window + 1)
        self._reserve(end, tensors)
        for name, tensor in tensors.items():
            self.buffers[name][..., first - self.base : end - self.base, :] = tensor
        return self._until(end)

    def view(self) -> SlotView | None:
        """What is stored."""
        return self._until(self.owner.length) if self.buffers else None

    def _until(self, end: int) -> SlotView:
        span = slice(self.start - self.base, end - self.base)
        kept = {name: buffer[..., span, :] for name, buffer in self.buffers.items()}
        device = next(iter(kept.values())).device
        return SlotView(kept, self.owner.index(self.start, end, device))

    def _reserve(self, end: int, tensors: Mapping[str, Tensor]) -> None:
        """Make room up to absolute index ``end``; what was dropped leaves the buffer then."""
        room = next(iter(self.buffers.values())).shape[-2] if self.buffers else 0
        if self.buffers and end - self.base <= room:
            return
        needed = end - self.start
        if self.capacity is None:
            size = max(FIRST_CAPACITY, 2 * needed)
        elif self.spec.window is not None:
            size = min(self.capacity, max(2 * self.spec.window, needed))
        else:
            size = self.capacity
        if needed > size:
            raise UserError(
                f"{needed} tokens don't fit into a state with room for {size}",
                remedy="Give new_state a larger capacity.",
                code="state-full",
            )
        kept = self._until(self.owner.length) if self.buffers else None
        for name, tensor in tensors.items():
            shape = (*tensor.shape[:-2], size, tensor.shape[-1])
            dtype = kept.tensors[name].dtype if kept else self.spec.stored(tensor.dtype, tensor.device.type)
            buffer = torch.zeros(shape, dtype=dtype, device=tensor.device)
            if kept is not None:
                old = kept.tensors[name]
                buffer[..., : old.shape[-2], :] = old
            self.buffers[name] = buffer
        self.base = self.start

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows."""
        self.buffers = {name: buffer[rows] for name, buffer in self.buffers.items()}

    def check_truncation(self, length: int) -> None:
        """Refuse where the window has dropped tokens that the next query would see."""
        if self.spec.window is not None and self.start > max(0, length - self.spec.window + 1):
            raise UserError(
                f"can't go back to {length} tokens: the window has dropped those before {self.start}",
                remedy="Take a snapshot before, and go on from it.",
                code="truncate-window",
            )

    def reset(self) -> None:
        """Forget everything."""
        self.buffers, self.base, self.start = {}, 0, 0

    def copy(self, owner: State) -> GrowingSlot:
        """The same tokens in buffers of their own."""
        copy = GrowingSlot(self.spec, owner, self.capacity)
        copy.buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        copy.base, copy.start = self.base, self.start
        return copy


class FixedSlot:
    """Tensors of a fixed size that every update replaces."""

    def __init__(self, spec: SlotSpec) -> None:
        self.spec = spec
        self.tensors: dict[str, Tensor] = {}

    def update(self, **tensors: Tensor) -> SlotView:
        """Replace the tensors."""
        self.tensors = {name: t if self.spec.dtype is None else t.to(self.spec.dtype) for name, t in tensors.items()}
        return self._view()

    def view(self) -> SlotView | None:
        """What is stored."""
        return self._view() if self.tensors else None

    def _view(self) -> SlotView:
        device = next(iter(self.tensors.values())).device
        return SlotView(self.tensors, torch.empty(0, dtype=torch.long, device=device))

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows."""
        self.tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}

    def check_truncation(self, length: int) -> None:
        """Refuse: what was mixed in can't be taken out."""
        raise UserError(
            f"can't go back to {length} tokens: a recurrent layer keeps no history",
            remedy="Take a snapshot before, and go on from it.",
            code="truncate-recurrent",
        )

    def reset(self) -> None:
        """Forget everything."""
        self.tensors = {}

    def copy(self, owner: State) -> FixedSlot:
        """The same in tensors of their own."""
        copy = FixedSlot(self.spec)
        copy.tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
        return copy
