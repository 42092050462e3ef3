"""Kind ``attention``: what mixes tokens: softmax attention, latent attention, recurrent and linear mixers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds.carriers import LayerContext, LayerStep, SlotSpec
from corelm.kinds.component import Component
from corelm.kinds.position import PositionGeometry


@dataclass(frozen=True)
class Heads:
    """What softmax attention mixes: queries, keys and values after their maps, norms and positions.

    Query head h reads key and value head ``h // (heads / kv_heads)``. Its score of a key is
    ``softcap · tanh(scale · q·k / softcap)``, and what positions add to it.

    Attributes:
        q: queries, ``(batch, heads, time, key_dim)``.
        k: keys, ``(batch, kv_heads, keys, key_dim)``.
        v: values, ``(batch, kv_heads, keys, value_dim)``.
        scale: factor of the products of queries and keys.
        softcap: bound of the scores; None: there is none.
        sinks: score of nothing, per head: it takes its part of the softmax and adds no value. None: there is none.
    """

    q: Float[Tensor, "batch heads time key_dim"]
    k: Float[Tensor, "batch kv_heads keys key_dim"]
    v: Float[Tensor, "batch kv_heads keys value_dim"]
    scale: float
    softcap: float | None = None
    sinks: Float[Tensor, " heads"] | None = None


class Attention(Component, nn.Module):
    """Mixes tokens; the only kind of layer part in which one token can influence another.

    Built as ``Part(config, layer: LayerContext)``.

    Contract, for input ``x`` of shape (batch, time, dim) and output of the same shape and dtype:
        * Causal where the mask is: output t depends on inputs 0 … t of its own row and document only.
        * ``step.slots`` given: the call continues the sequence; the concatenation of any split into calls
          equals one call over the whole. ``step.slots`` None: nothing is stored. What a slot has handed out is
          never written to: the caller may put it back later.
        * Padding (``step.step.valid`` False) never influences a real token, whatever it contains; the output at
          a padded query is finite.
        * Packed documents: each document's outputs equal those of the document alone.
        * Rows are independent of each other.
        * ``reference(x, step)``, where there is one, for steps without slots, in evaluation.
    Capabilities offered: ``rotation``, ``query``, ``scores`` (calls the position view's hook of that name),
    ``mask`` (honours any mask, not only causal, documents and padding), ``recurrent`` (state of fixed size,
    float32 or better, which padding leaves as it is to the bit; can't be truncated), ``softmax`` (``project`` and
    ``finish`` say what is computed, whatever the kernel), ``sink`` (weights sum to less than one: part of them
    goes to nothing), ``gate`` (what is mixed is then scaled by the token's own input), ``absolute`` (turning all
    tokens by the same distance changes scores).
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

    def project(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Heads:
        """Capability ``softmax``: what is mixed in a call without state."""
        raise NotImplementedError

    def finish(
        self, mixed: Float[Tensor, "batch heads time value_dim"], x: Float[Tensor, "batch time dim"]
    ) -> Float[Tensor, "batch time dim"]:
        """Capability ``softmax``: from mixed values to the output.

        Without state ``forward(x, step) == finish(mixed, x)``, ``mixed`` being the mean of the values of
        ``project(x, step)`` by the softmax of their scores over the keys that the mask allows; zero where it allows none.
        """
        raise NotImplementedError
