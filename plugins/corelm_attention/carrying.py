"""What a mixer keeps between calls, one tensor per slot; a slot and its only field have the same name."""

from __future__ import annotations

import torch
from torch import Tensor

from corelm.kinds import LayerStep, SlotSpec


def wide(x: Tensor) -> torch.dtype:
    """The type that is summed in over many tokens: float32 or better."""
    return torch.promote_types(x.dtype, torch.float32)


def slot(name: str, *shape: int) -> dict[str, SlotSpec]:
    """Declare a slot of a fixed size: one tensor of this shape per row."""
    return {name: SlotSpec({name: shape}, grows=False)}


def carried(step: LayerStep, name: str, like: Tensor, *shape: int) -> Tensor:
    """What the slot holds, ``(batch, *shape)``, in the wide type of ``like``; zeros where nothing is stored yet."""
    held = None if step.slots is None else step.slots[name].view()
    if held is None:
        return like.new_zeros(len(like), *shape, dtype=wide(like))
    return held.tensors[name].to(wide(like))


def carry(step: LayerStep, name: str, value: Tensor) -> None:
    """Put ``value`` into the slot; nothing where nothing is stored."""
    if step.slots is not None:
        step.slots[name].update(**{name: value})
