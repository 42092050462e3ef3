"""What travels through a model: facts known at build time, facts of one forward pass, and state per sequence.

Three carriers are enough for every published decoder:

* ``ModelContext`` and ``LayerContext`` when parts are built;
* ``Step`` (shared by all layers of one forward) and ``LayerStep`` (the view one layer gets of it);
* ``Slot`` per layer and name: what a mixer keeps between calls. The mixer declares, the caller stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

if TYPE_CHECKING:
    from corelm.kinds.mask import MaskView
    from corelm.kinds.position import PositionView


@dataclass(frozen=True)
class ModelContext:
    """Sizes of the whole model, known when its parts are built and checked.

    Attributes:
        dim: width of the residual stream.
        depth: number of layers.
        context: longest sequence that the recipe asks for, in tokens.
        vocab_size: rows of the embedding; 0 while it is not known yet (checks then skip it).
    """

    dim: int
    depth: int
    context: int
    vocab_size: int


@dataclass(frozen=True)
class LayerContext(ModelContext):
    """Sizes of the model, and which layer this is.

    Attributes:
        index: of the layer, from 0.
        block: name of the layer's block kind in the recipe (``default`` where there is only one).
    """

    index: int = 0
    block: str = "default"


@dataclass(frozen=True)
class SlotSpec:
    """What a mixer stores for one sequence between calls.

    Attributes:
        fields: name → shape of one row. For a growing slot the shape of *one token*, without the time axis:
            ``(heads, head_dim)`` is stored as ``(batch, heads, time, head_dim)``. For a fixed slot the whole
            shape: ``(heads, key_dim, value_dim)`` is stored as ``(batch, heads, key_dim, value_dim)``.
        grows: whether tokens are appended (keys, values) or the tensors are replaced (recurrent state).
        window: of a growing slot: no query looks back further than this many tokens, itself included, so
            that storage may drop older ones. None: everything is kept.
        dtype: storage type; None means the type of what is written first.
        widened: whether a CPU stores 16-bit numbers as float32, which it multiplies faster (not under autocast).
    """

    fields: Mapping[str, tuple[int, ...]]
    grows: bool
    window: int | None = None
    dtype: torch.dtype | None = None
    widened: bool = False

    def stored(self, dtype: torch.dtype, device: str) -> torch.dtype:
        """What numbers of this type are stored as on this type of device."""
        wide = self.widened and device == "cpu" and dtype.itemsize == 2 and not torch.is_autocast_enabled("cpu")
        return self.dtype or (torch.float32 if wide else dtype)


@dataclass(frozen=True)
class SlotView:
    """What a slot holds after an update.

    Attributes:
        tensors: name → tensor, ``(batch, *shape)``, growing ones with the time axis at -2.
        index: absolute index of each stored token, ``(stored,)``; empty for fixed slots. With a window the
            first entry may be above 0.
    """

    tensors: Mapping[str, Tensor]
    index: Int[Tensor, " stored"]


class Slot(Protocol):
    """Storage of one mixer's state; how it is kept (growing, static, paged …) is the caller's choice."""

    def update(self, **tensors: Tensor) -> SlotView:
        """Append the new tokens (growing) or replace the tensors (fixed), and return what is stored now.

        A growing slot's view still contains every token that a query of *this* call may look at.
        """
        ...

    def view(self) -> SlotView | None:
        """What is stored, or None before the first update."""
        ...


@dataclass
class Step:
    """Facts of one forward pass, shared by all layers.

    Attributes:
        ids: token ids, ``(batch, time)``.
        index: absolute index of each column in its row, ``(time,)``: ``past, past + 1, …``. Masks count in these.
        positions: position of each token within its document, ``(batch, past + time)``; skips padding.
        valid: False at padding, ``(batch, past + time)``; None when there is none.
        documents: which document each token belongs to, ``(batch, past + time)``; None for one per row.
        past: number of tokens that the state already holds.
        side: named tensors that one layer publishes and another reads.
        auxiliary: losses that parts report while training, by name; each is a mean per token, already weighted.
    """

    ids: Int[Tensor, "batch time"]
    index: Int[Tensor, " time"]
    positions: Int[Tensor, "batch total"]
    valid: Bool[Tensor, "batch total"] | None = None
    documents: Int[Tensor, "batch total"] | None = None
    past: int = 0
    side: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: dict[str, list[Tensor]] = field(default_factory=dict)

    def new_valid(self) -> Bool[Tensor, "batch time"] | None:
        """``valid`` of this call's tokens only."""
        return None if self.valid is None else self.valid[:, self.past :]

    def new_documents(self) -> Int[Tensor, "batch time"] | None:
        """``documents`` of this call's tokens only."""
        return None if self.documents is None else self.documents[:, self.past :]


@dataclass
class LayerStep:
    """One layer's view of the step: its position scheme, its mask, its slots.

    Attributes:
        step: what all layers share.
        position: the layer's prepared position scheme.
        mask: the layer's prepared mask.
        slots: the layer's state by slot name; None when nothing is cached.
    """

    step: Step
    position: PositionView
    mask: MaskView
    slots: Mapping[str, Slot] | None = None
