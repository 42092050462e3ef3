"""Norms that are wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from corelm.conformance.planted import plant, reference
from corelm.kinds.component import ComponentConfig
from corelm.kinds.norm import Norm
from corelm.kinds.parameters import ParameterInfo, declare


@reference
class RootMeanSquare(Norm):
    """Divides by the root of the mean square."""

    class Config(ComponentConfig):
        """Options."""

        eps: float = Field(1e-5, gt=0, le=1e-2, description="Added to the mean square.")

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.weight = declare(self, "weight", (dim,), ParameterInfo("norm", constant=1.0))

    @property
    def epsilon(self) -> float:
        """From the config."""
        return float(self.config.eps)

    def wide(self, x: Tensor) -> Tensor:
        """To float32 or better."""
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def statistic(self, x: Tensor) -> Tensor:
        """Mean square."""
        return x.square().mean(-1, keepdim=True)

    def divide(self, x: Tensor) -> Tensor:
        """Normalise."""
        return x * torch.rsqrt(self.statistic(x) + self.epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and scale."""
        return self.finish(self.divide(self.wide(x)), x)

    def finish(self, normalised: Tensor, x: Tensor) -> Tensor:
        """Apply the gain, go back to the dtype."""
        return (normalised * self.wide(self.weight)).to(x.dtype)


@reference
class MeanAndVariance(RootMeanSquare):
    """Subtracts the mean and divides by the deviation."""

    centred = True

    def divide(self, x: Tensor) -> Tensor:
        """Centre first."""
        return super().divide(x - x.mean(-1, keepdim=True))


@plant("nearly_scale_free")
class EpsOutsideTheRoot(RootMeanSquare):
    """x / (rms + eps)."""

    def divide(self, x: Tensor) -> Tensor:
        return x / (self.statistic(x).sqrt() + self.epsilon)


@plant("odd")
class AbsoluteValue(RootMeanSquare):
    """The negative side is cut a little."""

    def divide(self, x: Tensor) -> Tensor:
        return super().divide(x).clamp(min=-1.0)


@plant("centring_as_declared")
class UndeclaredCentring(MeanAndVariance):
    """Centres without saying so."""

    centred = False


@plant("second_moment")
class BesselCorrection(RootMeanSquare):
    """Divides by n − 1."""

    def statistic(self, x: Tensor) -> Tensor:
        return x.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)


@plant("tokenwise")
class StatisticOverTime(RootMeanSquare):
    """The mean square is taken over tokens as well."""

    def statistic(self, x: Tensor) -> Tensor:
        return x.square().mean((-1, -2), keepdim=True) if x.dim() > 1 else super().statistic(x)


@plant("homogeneous_in_gain")
class SquaredGain(RootMeanSquare):
    """Multiplies with the square of the gain."""

    def finish(self, normalised: Tensor, x: Tensor) -> Tensor:
        return (normalised * self.wide(self.weight) ** 2).to(x.dtype)


@plant("euler")
class DetachedStatistic(RootMeanSquare):
    """No gradient through the mean square."""

    def statistic(self, x: Tensor) -> Tensor:
        return super().statistic(x).detach()


@plant("rounded_once", "statistics in the dtype of the input (sglang#27540)")
class NoUpcast(RootMeanSquare):
    """Statistics in half precision."""

    def wide(self, x: Tensor) -> Tensor:
        return x


@plant("zero_is_safe")
class NoEpsAtZero(RootMeanSquare):
    """0/0."""

    def divide(self, x: Tensor) -> Tensor:
        return x / self.statistic(x).sqrt()


@plant("second_moment")
class HiddenScale(RootMeanSquare):
    """Everything is a little larger."""

    def divide(self, x: Tensor) -> Tensor:
        return 1.01 * super().divide(x)


@plant("idempotent")
class Clamped(RootMeanSquare):
    """Outliers are cut off."""

    def divide(self, x: Tensor) -> Tensor:
        return super().divide(x).clamp(-1.0, 1.0)


@plant("well_conditioned")
class DifferenceOfSquares(MeanAndVariance):
    """The variance as E[x²] − E[x]²."""

    def divide(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = x.square().mean(-1, keepdim=True) - mean.square()
        return (x - mean) * torch.rsqrt(variance.clamp(min=0) + self.epsilon)


@plant("dtype_is_kept")
class DtypeLeak(RootMeanSquare):
    """The output stays in float32 or wider."""

    def finish(self, normalised: Tensor, x: Tensor) -> Tensor:
        return normalised * self.wide(self.weight)


@plant("not_a_stub")
class AlwaysZero(RootMeanSquare):
    """Returns zeros."""

    def divide(self, x: Tensor) -> Tensor:
        return x * 0


@plant("loads")
class ForgottenMethod(Norm):
    """Leaves forward to somebody else."""


@plant("constructs")
class NarrowWidths(RootMeanSquare):
    """Can't be built for widths above eight, and doesn't say so."""

    def __init__(self, config: Any, dim: int) -> None:
        if dim > 8:
            raise ZeroDivisionError("dim")
        super().__init__(config, dim)


@plant("summary_is_docstring", "no docstring at all")
class NoDocstring(RootMeanSquare):
    __doc__ = None


@plant("config_round_trips")
class Undescribed(RootMeanSquare):
    """An option without a description."""

    class Config(ComponentConfig):
        """Options."""

        eps: float = 1e-5


@plant("capabilities_are_words")
class ListOfNeeds(RootMeanSquare):
    """Needs as a list."""

    @classmethod
    def needs(cls, config: Any) -> Any:
        return ["rotation"]


@plant("deterministic")
class CountsCalls(RootMeanSquare):
    """Drifts with every call."""

    calls = 0

    def divide(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().divide(x) * (1 + 1e-7 * self.calls)


@plant("pure")
class InPlace(RootMeanSquare):
    """Scales its input in place."""

    def divide(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.mul_(1.0 + 1e-3)
        return super().divide(x)


@plant("pure")
class SeedsTheWorld(RootMeanSquare):
    """Sets the global seed."""

    def divide(self, x: Tensor) -> Tensor:
        torch.manual_seed(7)
        return super().divide(x)


@plant("meta_construction")
class EagerParameter(RootMeanSquare):
    """Allocates on the processor, whatever the device."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.weight = nn.Parameter(torch.ones(dim, device="cpu"))


@plant("roles_are_declared")
class BareParameter(RootMeanSquare):
    """A parameter without a role."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.extra = nn.Parameter(torch.ones(dim))


@plant("roles_are_declared")
class GainOfMinusOne(RootMeanSquare):
    """A gain that begins at −1, so that each layer turns its input around."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.weight = declare(self, "weight", (dim,), ParameterInfo("norm", constant=-1.0))


@plant("roles_are_declared")
class BiasOfOne(RootMeanSquare):
    """A bias that begins at one, like a gain."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.bias = declare(self, "bias", (dim,), ParameterInfo("bias", constant=1.0))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y + self.bias.to(y.dtype)


@plant("saves_and_loads")
class StateOutside(RootMeanSquare):
    """Keeps a gain that isn't saved."""

    def divide(self, x: Tensor) -> Tensor:
        if "hidden" not in self.__dict__:
            self.__dict__["hidden"] = 1.0 + float(self.weight.detach().abs().sum()) * self.fresh()
        return super().divide(x) * self.__dict__["hidden"]

    def fresh(self) -> float:
        """Differs between instances."""
        StateOutside.made += 1
        return StateOutside.made * 1e-3

    made = 0


@plant("gradients_reach_every_parameter")
class DeadParameter(RootMeanSquare):
    """A second gain that nobody uses."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.unused = declare(self, "unused", (dim,), ParameterInfo("norm", constant=1.0))


@plant("gradients_are_derivatives", "the mean is detached, which no derivative along the centred input shows")
class DetachedMean(MeanAndVariance):
    """No gradient through the mean."""

    def divide(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True).detach()
        return centred * torch.rsqrt(self.statistic(x) + self.epsilon)


@plant("strides_do_not_matter")
class ReadsStorage(RootMeanSquare):
    """Trusts that its input is contiguous."""

    def divide(self, x: Tensor) -> Tensor:
        return super().divide(torch.as_strided(x, x.shape, torch.empty(x.shape, device="meta").stride()))


@plant("smallest_input")
class Squeezes(RootMeanSquare):
    """Drops axes of size one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.squeeze())
