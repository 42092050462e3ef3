"""Feed-forwards and activations that are wrong in one way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from corelm.conformance.bugs.router import BestTwo
from corelm.conformance.planted import plant, reference
from corelm.kinds.carriers import LayerContext, LayerStep
from corelm.kinds.component import ComponentConfig, Spec
from corelm.kinds.feedforward import Activation, FeedForward, Routing
from corelm.kinds.parameters import Linear


@reference
class Gated(FeedForward):
    """Gate and value."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.gate, self.up = Linear(layer.dim, 12), Linear(layer.dim, 12)
        self.down = Linear(12, layer.dim, residual=True)

    def hidden(self, x: Tensor) -> Tensor:
        """Between the maps."""
        return nn.functional.silu(self.gate(x)) * self.up(x)

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        """Transform."""
        return self.down(self.hidden(x))


@plant("settled_means_the_same", "the width that is built is not the one that is said")
class SettledOtherwise(Gated):
    """Twice dim is built, four times dim is said."""

    class Config(ComponentConfig):
        """Options."""

        width: int | None = Field(None, gt=0, description="Hidden features; default: twice dim.")

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        width = config.width or 2 * layer.dim
        self.gate, self.up = Linear(layer.dim, width), Linear(layer.dim, width)
        self.down = Linear(width, layer.dim, residual=True)

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        return config.model_copy(update={"width": config.width or 4 * context.dim})


@plant("residual_maps_come_last", "the last map doesn't say that it adds to the residual stream")
class UndeclaredOutput(Gated):
    """Begins as large in deep models as in shallow ones."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.down = Linear(12, layer.dim)


@plant("positionwise", "the mean over tokens is mixed in")
class MixesTokens(Gated):
    """A tenth of the mean."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x + 0.1 * x.mean(1, keepdim=True))


@plant("no_leaks", "a trace of the mean over tokens")
class TinyLeak(Gated):
    """1e-12 of the mean."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x + 1e-12 * x.mean(1, keepdim=True))


@plant("zero_gives_zero", "a constant is added")
class StrayBias(Gated):
    """No parameter, but a bias."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) + 0.01


@plant("every_unit_lives", "one hidden unit is cut off")
class DeadUnit(Gated):
    """Multiplied by zero."""

    def hidden(self, x: Tensor) -> Tensor:
        keep = torch.ones(12, dtype=x.dtype, device=x.device)
        keep[3] = 0
        return super().hidden(x) * keep


@reference
class Mixture(FeedForward):
    """Three experts, the best two per token."""

    router_class: ClassVar[type[BestTwo]] = BestTwo

    class Config(ComponentConfig):
        """Options."""

        shared: Spec[FeedForward] | None = Field(None, description="One that sees every token.")

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.router = self.router_class(self.router_class.Config(), layer.dim, 3)
        self.experts = nn.ModuleList(Gated(ComponentConfig(), layer) for _ in range(3))
        self.shared: FeedForward | None = config.shared.build(layer) if config.shared else None

    def route(self, x: Tensor) -> Routing:
        """Choose."""
        routing: Routing = self.router(x)
        return routing

    def balance(self, routing: Routing, step: LayerStep) -> Tensor:
        """Mean squared load over real tokens."""
        valid = step.step.new_valid()
        probabilities = routing.probabilities if valid is None else routing.probabilities[valid.flatten()]
        return probabilities.mean(0).square().sum()

    def report(self, routing: Routing, step: LayerStep) -> None:
        """Only while training."""
        if self.training:
            step.step.auxiliary.setdefault("balance", []).append(self.balance(routing, step))

    def forward(self, x: Tensor, step: LayerStep) -> Tensor:
        """A loop over choices."""
        flat = x.flatten(0, 1)
        routing = self.route(flat)
        every = torch.stack([expert(x, step).flatten(0, 1) for expert in self.experts], 1)
        picked = every.gather(1, self.pick(routing)[..., None].expand(-1, -1, x.shape[-1]))
        self.report(routing, step)
        return self.with_shared((picked * routing.weights[..., None].to(x.dtype)).sum(1).view_as(x), x, step)

    def with_shared(self, y: Tensor, x: Tensor, step: LayerStep) -> Tensor:
        """Add what the shared one gives."""
        return y if self.shared is None else y + self.shared(x, step)

    def pick(self, routing: Routing) -> Tensor:
        """Which experts' results are summed."""
        return routing.experts


@plant("auxiliary_in_training_only", "reported in evaluation as well")
class AlwaysReports(Mixture):
    """Whatever the mode."""

    def report(self, routing: Routing, step: LayerStep) -> None:
        step.step.auxiliary.setdefault("balance", []).append(self.balance(routing, step))


@plant("padding_has_no_load", "padding counts as load")
class BalancesPadding(Mixture):
    """Over all tokens."""

    def balance(self, routing: Routing, step: LayerStep) -> Tensor:
        return routing.probabilities.mean(0).square().sum()


@plant("identical_experts", "weights are not divided by their sum again")
class NotRenormalised(Mixture):
    """Promises to, and doesn't."""

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.router.forward = self._loose  # type: ignore[method-assign]

    def _loose(self, x: Tensor) -> Routing:
        probabilities = self.router.probabilities(x)
        weights, experts = self.router.choose(probabilities)
        return self.router.routing(experts, weights, probabilities, x)


@plant("mixture_is_the_weighted_sum", "experts are off by one")
class ExpertOffByOne(Mixture):
    """The neighbour answers."""

    def pick(self, routing: Routing) -> Tensor:
        return (routing.experts + 1) % 3


@plant("mixture_is_the_weighted_sum", "inputs are said to be weighed, and outputs are")
class WeighsTheWrongSide(Mixture):
    """Ignores the field."""

    class InputRouter(BestTwo):
        """Says so."""

        def forward(self, x: Tensor) -> Routing:
            return replace(super().forward(x), weigh="input")

    router_class = InputRouter


@plant("shared_is_added", "the average of both")
class AveragesShared(Mixture):
    """Halved."""

    def with_shared(self, y: Tensor, x: Tensor, step: LayerStep) -> Tensor:
        return y if self.shared is None else super().with_shared(y, x, step) / 2


@plant("router_learns", "gates are detached")
class DetachedGates(Mixture):
    """No gradient to the router."""

    def route(self, x: Tensor) -> Routing:
        with torch.no_grad():
            routing: Routing = self.router(x)
        return routing


@reference
class Swish(Activation):
    """x · sigmoid(x)."""

    formula = "silu"

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        return x * torch.sigmoid(x)


@plant("formula_of_its_name", "the rough GELU under the name of SiLU")
class QuickForSwish(Swish):
    """1.702."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


@plant("zero_at_zero", "a constant is added, so that silence makes a sound")
class Shifted(Swish):
    """f(x) + 0.1."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1


@plant("pair_of_its_name", "the value is shifted as well")
class ShiftedValue(Swish):
    """up + 1."""

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return self(gate) * (up + 1)


@plant("elementwise", "scaled by the largest element")
class OverTheAxis(Swish):
    """Depends on neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.softmax(x, -1)


@plant("linear_in_the_value", "a sum in place of the product")
class Sum(Swish):
    """gate + up."""

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return self(gate) + up


@plant("finite_far_out", "exp(x) / (1 + exp(x))")
class Overflows(Swish):
    """inf/inf."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.exp() / (1 + x.exp())


@plant("derivative", "the gate is detached")
class DetachedGate(Swish):
    """Half the derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x).detach()
