"""Kind ``feedforward``: the per-token transform, and its options ``activation`` and ``router``."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from corelm.kinds.carriers import LayerContext, LayerStep
from corelm.kinds.component import Component


class FeedForward(Component, nn.Module):
    """Transforms each token on its own.

    Built as ``Part(config, layer: LayerContext)``.

    Contract, for ``x`` of shape (batch, time, dim) and output of the same shape and dtype:
        * Token t's output depends on token t only, to the last bit of influence (zero Jacobian elsewhere).
        * Parts without biases map zero to zero.
        * While training, a part may append to ``step.step.auxiliary[name]`` a loss: a scalar, mean over the
          real tokens of this call, already weighted. In evaluation it appends nothing.
        * ``reference(x, step)``, where there is one, in evaluation.
    """

    kind: ClassVar[str] = "feedforward"

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__()
        self.config = config
        self.layer = layer

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Transform every token."""


class Activation(Component, nn.Module):
    """Option of feed-forwards: an elementwise function, ``f(0) = 0`` unless its docstring says otherwise.

    Built as ``Part(config)``. Gated linear units call ``combine(gate, up)``, by default ``f(gate) * up``; override it
    where the value is treated otherwise (clamped, shifted).
    """

    kind: ClassVar[str] = "activation"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply the function to every element."""

    def combine(self, gate: Float[Tensor, "*shape"], up: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Combine gate and value of a gated linear unit."""
        opened: Tensor = self(gate)
        return opened * up


@dataclass(frozen=True)
class Routing:
    """Which experts each token goes to.

    Attributes:
        experts: ``(tokens, chosen)``, distinct within a row.
        weights: ``(tokens, chosen)``, what each expert's output (or input) is multiplied by.
        probabilities: ``(tokens, experts)``, each row sums to one; for balancing losses.
        logits: ``(tokens, experts)``, what they were made from; for losses on their size.
        weigh: whether weights multiply what experts give, or what they are given.
    """

    experts: Int[Tensor, "tokens chosen"]
    weights: Float[Tensor, "tokens chosen"]
    probabilities: Float[Tensor, "tokens experts"]
    logits: Float[Tensor, "tokens experts"]
    weigh: Literal["output", "input"] = "output"


class Router(Component, nn.Module):
    """Option of mixtures of experts: scores experts for each token.

    Built as ``Part(config, dim: int, experts: int)``.

    Contract:
        * Each token is routed on its own, to distinct experts, with weights that aren't negative.
        * Scores are computed in float32 or better, whatever the dtype of the tokens.
        * Of the chosen experts, a more probable one has no smaller weight.
        * ``selection_bias`` has a part in the choice of experts and in nothing else: not in weights, not in
          probabilities. It is a buffer that is saved with the model, and no gradient reaches it.
        * ``reference(x)``, where there is one: a routing.
    Capabilities offered: ``greedy`` where the chosen experts are always the most probable ones.

    Raises:
        UserError: so many experts can't be chosen from so many.
    """

    kind: ClassVar[str] = "router"
    selection_bias: Float[Tensor, " experts"] | None
    """What is added to the experts' scores when they are compared with each other; None for nothing."""
    chosen: int | None = None
    """Experts per token, set when it is built; None: it isn't said, and what it costs is told for all experts."""

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__()
        self.config = config
        self.dim, self.experts = dim, experts
        self.register_buffer("selection_bias", None)

    @abstractmethod
    def forward(self, x: Float[Tensor, "tokens dim"]) -> Routing:
        """Choose experts for every token."""
