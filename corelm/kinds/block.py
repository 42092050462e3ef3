"""Kind ``block``: wires sub-layers and the residual stream; and its option ``connection``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from corelm.kinds.attention import Attention
from corelm.kinds.carriers import LayerContext, LayerStep
from corelm.kinds.component import Component
from corelm.kinds.feedforward import FeedForward
from corelm.kinds.norm import Norm


class Connection(Component, nn.Module):
    """Option of blocks: how sub-layers read from and write to the residual stream(s).

    Built as ``Part(config, layer: LayerContext)``, one per layer (and one more with ``index == depth`` for
    ``enter`` and ``exit``). ``streams`` is opaque to blocks; the plain connection has exactly one.
    """

    kind: ClassVar[str] = "connection"

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__()
        self.config = config
        self.layer = layer

    @abstractmethod
    def enter(self, embedding: Float[Tensor, "batch time dim"]) -> Tensor:
        """Make the streams from the embeddings."""

    @abstractmethod
    def read(self, streams: Tensor) -> Float[Tensor, "batch time dim"]:
        """What the next sub-layer sees."""

    @abstractmethod
    def write(self, streams: Tensor, y: Float[Tensor, "batch time dim"], *, keep: Tensor | None = None) -> Tensor:
        """Add a sub-layer's result to the streams; ``keep`` replaces what is carried on (residual of the normed)."""

    @abstractmethod
    def exit(self, streams: Tensor) -> Float[Tensor, "batch time dim"]:
        """What the final norm sees."""


@dataclass
class BlockParts:
    """What a block wires together, already built.

    Attributes:
        attention: the mixer; None in blocks that have none.
        feedforward: the per-token transform; None in blocks that have none.
        norm: makes a fresh norm of the layer's chosen part over this many features.
        connection: this layer's residual connection.
    """

    attention: Attention | None
    feedforward: FeedForward | None
    norm: Callable[[int], Norm]
    connection: Connection


class Block(Component, nn.Module):
    """One layer of the stack.

    Built as ``Part(config, layer: LayerContext, parts: BlockParts)``. It registers the parts that it uses as
    sub-modules ``attention`` and ``feedforward``.

    Contract:
        * Streams in, streams out; where every branch returns zero the block is the identity (layouts whose
          definition says otherwise, such as ``post``, excepted).
        * It adds no mixing between tokens of its own.
    """

    kind: ClassVar[str] = "block"

    def __init__(self, config: Any, layer: LayerContext, parts: BlockParts) -> None:
        super().__init__()
        self.config = config
        self.layer = layer

    @abstractmethod
    def forward(self, streams: Tensor, step: LayerStep) -> Tensor:
        """Run the sub-layers."""
