"""Kind ``position``: how a model knows the order of its tokens; and its option ``scaling``."""

from __future__ import annotations

from abc import abstractmethod
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
          batch mates, or what was seen before; nor on the length of the sequence, up to ``constant_up_to``.
        * Beyond that length a token's result depends on its ``length`` too: that of its own document as far as this
          call knows it, the tokens of the past included. Such a scheme sees the future through the length, and keys
          that were stored keep what they were stored with: only documents up to ``constant_up_to`` give the same in
          one call and in several.
        * ``rotation`` is linear and acts on the last axis of queries and keys alike: it turns, and multiplies the
          features that it turns by ``attention_factor``.
        * A score, rotated or biased, depends on the distance of query and key only, unless ``relative`` is False.
        * ``query`` multiplies each query by a positive number that its position alone decides.
        * Angles are computed in float32 or better whatever the dtype of the activations, and results have
          the dtype of the activations.
        * ``reference(q, positions, lengths)``, where there is one: what ``rotation`` and ``query`` make of queries.
    Capabilities needed: ``attention:rotation`` for rotation, ``attention:query`` for query,
    ``attention:scores`` for score.
    """

    kind: ClassVar[str] = "position"
    hooks: ClassVar[frozenset[Hook]] = frozenset()
    limit: int | None = None
    """Positions from 0 up to and without this are representable; None: any."""
    constant_up_to: int | None = None
    """Documents of up to this many tokens are treated alike, whatever their length; None: all are."""
    attention_factor: float = 1.0
    """What ``rotate`` multiplies the features by that it turns."""
    relative: bool = True
    """Whether scores depend on distance only; False where a published scheme rounds what it adds by position."""

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

    def prepare(self, positions: Int[Tensor, "batch time"], lengths: Int[Tensor, "batch time"] | None = None) -> Any:
        """Compute what the other hooks need for these (new) tokens, once per forward; opaque to callers.

        ``lengths`` is each token's document's, and is given to schemes with ``constant_up_to`` only; None: none is
        longer than that.
        """
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


@dataclass(frozen=True)
class Ladder:
    """The frequencies of a rotation, from which a scaling starts.

    Attributes:
        theta: base.
        rotated: features that are turned, an even number.
        context: longest sequence that the recipe asks for.
    """

    theta: float
    rotated: int
    context: int

    def frequencies(self, device: torch.device | None = None) -> Float[Tensor, " pairs"]:
        """Angle per position of every pair, ``theta^(−2j/rotated)``, float64."""
        pair = torch.arange(0, self.rotated, 2, dtype=torch.float64, device=device)
        return torch.pow(self.theta, -pair / self.rotated)


class Scaling(Component):
    """Option of rotary positions: changes the frequencies, so that a model reads further than it was trained to.

    Built as ``Part(config, ladder: Ladder)``. Stateless.

    Contract:
        * Frequencies are float64, finite and positive, one per pair.
        * Without ``constant_up_to`` lengths make no difference. With it, all lengths up to it give one and the same
          result, and a token's frequencies depend on its own length only.

    Raises:
        UserError: the ladder is not one that it can scale.
    """

    kind: ClassVar[str] = "scaling"
    attention_factor: float = 1.0
    """What the turned features of queries and keys are multiplied by."""
    constant_up_to: int | None = None
    """Documents of up to this many tokens are treated alike; None: all are."""

    def __init__(self, config: Any, ladder: Ladder) -> None:
        self.config = config
        self.ladder = ladder

    @abstractmethod
    def frequencies(
        self, device: torch.device | None = None, lengths: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "*tokens pairs"]:
        """Angle per position of every pair, for all tokens alike ``(pairs,)`` or for each ``(batch, time, pairs)``.

        ``lengths`` is each token's document's; None: none is longer than ``constant_up_to``.
        """


@dataclass
class PositionView:
    """One layer's position schemes, prepared for this forward; what attention calls.

    Attributes:
        schemes: (part, what its ``prepare`` returned), applied in order.
        positions: of all tokens so far, ``(batch, past + time)``.
    """

    schemes: list[tuple[Position, Any]]
    positions: Int[Tensor, "batch total"]
    memo: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)

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
        """Sum of all score biases for these absolute indices; None when no scheme has any.

        Kept for other layers of the same forward, which ask with the very same tensors of indices.
        """
        if not any("score" in scheme.hooks for scheme, _ in self.schemes):
            return None
        # Known by identity: to look at their values would wait for the device, and break compiled graphs.
        for query, key, kept in self.memo:
            if query is query_index and key is key_index:
                return kept
        positions = self.positions if self.positions.stride(0) else self.positions[:1]  # one row, expanded
        queries, keys = positions[:, query_index], positions[:, key_index]
        total: Tensor | None = None
        for scheme, _ in self.schemes:
            bias = scheme.scores(queries, keys)
            if bias is not None:
                total = bias if total is None else total + bias
        self.memo.append((query_index, key_index, total))
        return total


def no_positions(batch: int, time: int, device: torch.device | None = None) -> PositionView:
    """A view with no scheme at all (tests, parts that are used on their own)."""
    return PositionView([], torch.arange(time, device=device).expand(batch, time))
