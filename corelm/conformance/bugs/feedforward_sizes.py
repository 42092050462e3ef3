"""Feed-forwards whose sizes are not what they say, or what their name says."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from corelm.conformance.bugs.feedforward import Gated
from corelm.conformance.planted import plant, reference
from corelm.kinds.carriers import LayerContext
from corelm.kinds.component import ComponentConfig, Spec, use
from corelm.kinds.feedforward import Activation
from corelm.kinds.parameters import Linear


@reference
class Usual(Gated):
    """As wide as usual by default."""

    formula = "swiglu"

    class Config(ComponentConfig):
        """Options."""

        width: int | None = Field(None, gt=0, description="Hidden features; default: 8/3 of dim, rounded up.")

    @classmethod
    def usual(cls, dim: int) -> int:
        """Where nobody has said how wide."""
        return (8 * dim + 191) // 192 * 64

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """Written out."""
        return config.model_copy(update={"width": config.width or cls.usual(context.dim)})

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """Three maps."""
        return 3 * layer.dim * (config.width or cls.usual(layer.dim))

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        width = config.width or self.usual(layer.dim)
        self.gate, self.up = Linear(layer.dim, width), Linear(layer.dim, width)
        self.down = Linear(width, layer.dim, residual=True)


@plant("width_of_its_name", "4 · dim, as without a gate")
class AsWideAsUngated(Usual):
    """Half as many parameters more."""

    @classmethod
    def usual(cls, dim: int) -> int:
        return 4 * dim


@plant("width_of_its_name", "rounded down")
class RoundedDown(Usual):
    """To a multiple of 64, and to 64 at least."""

    @classmethod
    def usual(cls, dim: int) -> int:
        return max(8 * dim // 192 * 64, 64)


@plant("settled_leaves_nothing_out", "the width is left to whoever reads the settled config")
class LeavesItsWidthOut(Usual):
    """None."""

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        return config


@plant("options_bring_their_parameters", "activations are taken to have no parameters")
class WeightlessActivation(Gated):
    """True of most."""

    class Config(ComponentConfig):
        """Options."""

        activation: Spec[Activation] = Field(use("silu"), description="Opens the gate.")

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        return 3 * 12 * layer.dim

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.activation: Activation = config.activation.build()
