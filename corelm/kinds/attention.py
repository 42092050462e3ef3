"""Kind ``attention``: what mixes tokens: softmax attention, latent attention, recurrent and linear mixers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds.carriers import LayerContext, LayerStep, SlotSpec
from corelm.kinds.component import Component
from corelm.kinds.position import PositionGeometry


class Attention(Component, nn.Module):
    """Mixes tokens; the only kind of layer part in which one token can influence another.

    Built as ``Part(config, layer: LayerContext)``.

    Contract, for input ``x`` of shape (batch, time, dim) and output of the same shape and dtype:
        * Causal where the mask is: output t depends on inputs 0 … t of its own row and document only.
        * ``step.slots`` given: the call continues the sequence; the concatenation of any split into calls
          equals one call over the whole. ``step.slots`` None: nothing is stored.
        * Padding (``step.step.valid`` False) never influences a real token, whatever it contains; the output at
          a padded query is finite.
        * Packed documents: each document's outputs equal those of the document alone.
        * Rows are independent of each other.
    Capabilities offered: ``rotation``, ``query``, ``scores`` (calls the position view's hook of that name),
    ``mask`` (honours any mask, not only causal, documents and padding), ``recurrent`` (state of fixed
    size; can't be truncated).
    """

    kind: ClassVar[str] = "attention"
    geometry: PositionGeometry | None = None
    """Sizes for position schemes; None when no position hook is ever called."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__()
        self.config = config
        self.layer = layer

    @abstractmethod
    def slots(self, window: int | None) -> dict[str, SlotSpec]:
        """What must be stored between calls, by name; ``window`` is the layer's mask's, for growing slots."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens."""
