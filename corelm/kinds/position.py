"""Kind ``position``: how a model knows the order of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from corelm.kinds.component import Component

Hook = Literal["embedding", "rotation", "query", "score"]


@dataclass(frozen=True)
class PositionGeometry:
    """Sizes that a position scheme must fit, taken from the attention that uses it.

    Attributes:
        dim: width of the residual stream.
        heads: query heads.
        head_dim: size of the part of each head that may be rotated.
        context: longest sequence that the recipe asks for.
    """

    dim: int
    heads: int
    head_dim: int
    context: int


class Position(Component, nn.Module):
    """Adds position in one or more of four places; each hook does nothing unless overridden.

    Built as ``Part(config, geometry: PositionGeometry)``. Equal configs with equal geometry are built once per
    model and shared; ``prepare`` runs once per forward for all layers that share it.

    Contract:
        * ``hooks`` names exactly the hooks that do something.
        * A token's result depends on its own position (and, for scores, the key's), never on call history,
          batch mates, the length of the sequence, or what was seen before.
        * ``rotation`` is linear and acts on the last axis of queries and keys alike.
        * Angles are computed in float32 or better whatever the dtype of the activations, and results have
          the dtype of the activations.
    Capabilities needed: ``attention:rotation`` for rotation, ``attention:query`` for query,
    ``attention:scores`` for score.
    """

    kind: ClassVar[str] = "position"
    hooks: ClassVar[frozenset[Hook]] = frozenset()
    limit: int | None = None
    """Positions from 0 up to and without this are representable; None: any."""

    def __init__(self, config: Any, geometry: PositionGeometry) -> None:
        super().__init__()
        self.config = config
        self.geometry = geometry

    @classmethod
    def needs(cls, config: Any) -> frozenset[str]:
        """What the hooks need of the attention."""
        wanted = {"rotation": "attention:rotation", "query": "attention:query", "score": "attention:scores"}
        return frozenset(wanted[hook] for hook in cls.hooks if hook in wanted)

    def embed(
        self, x: Float[Tensor, "batch time dim"], positions: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time dim"]:
        """Hook ``embedding``: change the token embeddings."""
        return x

    def prepare(self, positions: Int[Tensor, "batch time"]) -> Any:
        """Compute what the other hooks need for these (new) tokens, once per forward; opaque to callers."""
        return None

    def rotate(
        self,
        q: Float[Tensor, "batch heads time head_dim"],
        k: Float[Tensor, "batch kv_heads time head_dim"],
        prepared: Any,
    ) -> tuple[Float[Tensor, "batch heads time head_dim"], Float[Tensor, "batch kv_heads time head_dim"]]:
        """Hook ``rotation``: change queries and keys alike, before keys are stored."""
        return q, k

    def scale_query(
        self, q: Float[Tensor, "batch heads time head_dim"], prepared: Any
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """Hook ``query``: change queries alone."""
        return q

    def scores(
        self, queries: Int[Tensor, "batch time"], keys: Int[Tensor, "batch keys"]
    ) -> Float[Tensor, "rows heads time keys"] | None:
        """Hook ``score``: what to add to the attention scores of queries and keys at these positions.

        ``rows`` is the batch size, or 1 when all rows are alike. Float32.
        """
        return None


@dataclass
class PositionView:
    """One layer's position schemes, prepared for this forward; what attention calls.

    Attributes:
        schemes: (part, what its ``prepare`` returned), applied in order.
        positions: of all tokens so far, ``(batch, past + time)``.
    """

    schemes: list[tuple[Position, Any]]
    positions: Int[Tensor, "batch total"]
    memo: dict[tuple[int, int, int, int], Tensor | None] = field(default_factory=dict)

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Apply all rotations to queries and keys, ``(batch, heads, time, head_dim)`` each."""
        for scheme, prepared in self.schemes:
            if "rotation" in scheme.hooks:
                q, k = scheme.rotate(q, k, prepared)
        return q, k

    def scale_query(self, q: Tensor) -> Tensor:
        """Apply all hooks that change queries alone."""
        for scheme, prepared in self.schemes:
            if "query" in scheme.hooks:
                q = scheme.scale_query(q, prepared)
        return q

    def scores(
        self, query_index: Int[Tensor, " time"], key_index: Int[Tensor, " keys"]
    ) -> Float[Tensor, "rows heads time keys"] | None:
        """Sum of all score biases for these absolute indices; None when no scheme has any."""
        if not any("score" in scheme.hooks for scheme, _ in self.schemes):
            return None
        key = (int(query_index[0]), len(query_index), int(key_index[0]), len(key_index))
        if key not in self.memo:
            total: Tensor | None = None
            queries, keys = self.positions[:, query_index], self.positions[:, key_index]
            for scheme, _ in self.schemes:
                bias = scheme.scores(queries, keys)
                if bias is not None:
                    total = bias if total is None else total + bias
            self.memo[key] = total
        return self.memo[key]


def no_positions(batch: int, time: int, device: torch.device | None = None) -> PositionView:
    """A view with no scheme at all (tests, parts that are used on their own)."""
    return PositionView([], torch.arange(time, device=device).expand(batch, time))
