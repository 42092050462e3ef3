"""Mixture of experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from corelm.errors import UserError
from corelm.kinds import (
    ComponentConfig,
    Cost,
    FeedForward,
    LayerContext,
    LayerStep,
    Linear,
    Problem,
    Router,
    Routing,
    Spec,
    Work,
    cost_of,
    parameter_count,
    use,
)


class MixtureOfExperts(FeedForward):
    """Sends each token through a few of many feed-forwards (Shazeer et al., 2017, arXiv:1701.06538).

    ``y = Σ weight · expert(x)`` over the experts that the router chose, or ``Σ expert(weight · x)`` where it weighs
    inputs, plus what the shared feed-forward gives, which sees every token: all of it, or with ``shared_gate`` the
    share ``sigmoid(w · x)`` (Qwen Team, 2024, arXiv:2407.10671). No token is dropped, whatever the balance. Experts
    are modules, so that adapters, quantizers and importers treat their maps like any other; on CPUs stacked weights may
    be faster where there are many tiny experts.

    In training two auxiliary losses are reported: ``balance · E · Σ_e f_e P_e`` with the share f of choices and the
    mean probability P of each of E experts (Fedus et al., 2021, arXiv:2101.03961), and
    ``z_loss · mean(logsumexp(logits)²)`` (Zoph et al., 2022, arXiv:2202.08906).
    """

    one_graph: ClassVar[bool] = False

    class Config(ComponentConfig):
        """Options."""

        experts: int = Field(8, gt=0, description="Number of experts.")
        expert: Spec[FeedForward] = Field(use("swiglu"), description="The feed-forward that each expert is.")
        shared: Spec[FeedForward] | None = Field(None, description="One that sees every token; none by default.")
        shared_gate: bool = Field(False, description="Whether a learned gate scales what the shared one gives.")
        router: Spec[Router] = Field(use("top-k"), description="What chooses experts.")
        balance: float = Field(0.01, ge=0, description="Weight of the loss that evens out the experts' load.")
        z_loss: float = Field(0.0, ge=0, description="Weight of the loss that keeps the router's logits small.")

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """Experts are dense, and the router must fit their number."""
        if issubclass(config.expert.part, MixtureOfExperts):
            yield Problem(
                ("expert",), "an expert can't be a mixture itself", "Name a dense feed-forward.", "mixture-in-mixture"
            )
        if config.shared_gate and config.shared is None:
            yield Problem(
                ("shared_gate",),
                "shared_gate is true, but there is no shared feed-forward that it could scale",
                "Name one in `shared`, or leave out `shared_gate`.",
                "gate-without-shared",
            )
        try:
            with torch.device("meta"):
                config.router.build(context.dim, config.experts)
        except UserError as error:
            yield Problem(("router",), error.message, error.remedy, error.code)

    @classmethod
    def parameter_count(cls, config: Any, layer: LayerContext) -> int:
        """Those of the router, of ``experts`` experts, of the shared feed-forward and its gate."""
        return (
            config.experts * parameter_count(config.expert, layer)
            + parameter_count(config.router, layer.dim, config.experts)
            + parameter_count(config.shared, layer)
            + config.shared_gate * layer.dim
        )

    def cost(self, work: Work) -> Cost:
        """The router, the shared feed-forward, and per token the experts that are chosen, not all of them."""
        always = sum((cost_of(part, work) for part in (self.router, self.shared, self.shared_gate)), Cost())
        each, choices = cost_of(self.experts[0], Work(1, 1)), work.tokens * (self.router.chosen or len(self.experts))
        return always + Cost(choices * each.operations, min(choices, len(self.experts)) * each.reads)

    def __init__(self, config: Any, layer: LayerContext) -> None:
        super().__init__(config, layer)
        self.router: Router = config.router.build(layer.dim, config.experts)
        self.experts = nn.ModuleList(config.expert.build(layer) for _ in range(config.experts))
        self.shared: FeedForward | None = config.shared.build(layer) if config.shared else None
        self.shared_gate = Linear(layer.dim, 1, role="router") if config.shared_gate else None

    def forward(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """Transform every token."""
        tokens = x.flatten(0, 1)
        routing: Routing = self.router(tokens)
        y = self._mixture(tokens, routing, step).view_as(x)
        if self.training:
            self._report(routing, step)
        if self.shared is None:
            return y
        always = self.shared(x, step)
        return y + (always if self.shared_gate is None else self.shared_gate(x).sigmoid() * always)

    def reference(self, x: Float[Tensor, "batch time dim"], step: LayerStep) -> Float[Tensor, "batch time dim"]:
        """The definition, a token and an expert at a time."""
        y = torch.zeros_like(x)
        for row, t in torch.cartesian_prod(*map(torch.arange, x.shape[:2])).tolist():
            token = x[row, t, None, None]
            routing = self.router(token[0])
            for number, weight in zip(routing.experts[0].tolist(), routing.weights[0].tolist(), strict=True):
                expert, before = self.experts[number], routing.weigh == "input"
                y[row, t] += expert(weight * token, step)[0, 0] if before else weight * expert(token, step)[0, 0]
            if self.shared is not None:
                share = 1.0 if self.shared_gate is None else self.shared_gate(token).sigmoid()[0, 0]
                y[row, t] += share * self.shared(token, step)[0, 0]
        return y

    def _mixture(self, tokens: Float[Tensor, "tokens dim"], routing: Routing, step: LayerStep) -> Tensor:
        """Group the choices by expert, run each expert once, and add up per token."""
        chosen = routing.experts.shape[1]
        order = routing.experts.flatten().argsort(stable=True)
        loads: list[int] = self._loads(routing.experts).tolist()
        given, weights = tokens[order // chosen], routing.weights
        if routing.weigh == "input":
            given = given * weights.flatten()[order, None].to(given.dtype)
        results = torch.cat(
            [
                expert(group[None], step)[0]
                for expert, group in zip(self.experts, given.split(loads), strict=True)
                if len(group) or not len(tokens)
            ]
        )
        # Back to the order of the choices; then a sum of fixed order, for the same bits on every device.
        by_choice = results.new_empty(results.shape).index_copy(0, order, results).unflatten(0, (-1, chosen))
        if routing.weigh == "output":
            by_choice = by_choice * weights[..., None].to(results.dtype)
        return by_choice.sum(1).to(tokens.dtype)

    def _loads(self, experts: Int[Tensor, "tokens chosen"]) -> Int[Tensor, " experts"]:
        return torch.bincount(experts.flatten(), minlength=len(self.experts))

    def _report(self, routing: Routing, step: LayerStep) -> None:
        """Append the auxiliary losses, over real tokens only."""
        valid = step.step.new_valid()
        real = slice(None) if valid is None else valid.flatten()
        experts, probabilities, logits = routing.experts[real], routing.probabilities[real], routing.logits[real]
        if not len(experts):
            return
        if self.config.balance:
            share = self._loads(experts).to(probabilities.dtype) / experts.numel()
            loss = len(self.experts) * (share * probabilities.mean(0)).sum()
            step.step.auxiliary.setdefault("balance", []).append(self.config.balance * loss)
        if self.config.z_loss:
            loss = logits.logsumexp(-1).square().mean()
            step.step.auxiliary.setdefault("router-z", []).append(self.config.z_loss * loss)
