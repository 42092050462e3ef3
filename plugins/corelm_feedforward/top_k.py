"""The router that takes the k best experts."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, ParameterInfo, Router, Routing, declare

TINY = 1e-20
"""Keeps 0/0 out of weights whose scores have all underflowed; lost in the rounding of any other sum."""


class TopKRouter(Router):
    """Sends each token to the k experts that a linear map prefers (Shazeer et al., 2017, arXiv:1701.06538).

    ``score-then-top-k`` scores all experts and takes the weights of the chosen; ``top-k-then-score`` scores the
    chosen among themselves. Scores are in float32 or better. ``probabilities`` always sum to one over all experts.

    ``groups`` of experts that stand next to each other compete first: each token goes only to experts of its
    ``groups_kept`` best groups, by the best score in a group (DeepSeek-AI, 2024, arXiv:2405.04434) or the sum of
    its two best (DeepSeek-AI, 2024, arXiv:2412.19437). A selection bias evens out the experts' load without
    touching the weights (Wang et al., 2024, arXiv:2408.15664). Here it is a constant that comes with a checkpoint:
    zero at first, and no training changes it.
    """

    class Config(ComponentConfig):
        """Options."""

        chosen: int = Field(2, gt=0, description="Experts per token.")
        bias: bool = Field(False, description="Whether the linear map has a bias.")
        score: Literal["softmax", "sigmoid"] = Field("softmax", description="How logits become weights.")
        order: Literal["score-then-top-k", "top-k-then-score"] = Field(
            "score-then-top-k", description="Whether weights are taken among all experts, or among the chosen."
        )
        selection_bias: bool = Field(
            False, description="Whether a constant per expert is added to scores when experts are chosen."
        )
        groups: int = Field(1, gt=0, description="Groups of neighbouring experts, which compete first.")
        groups_kept: int = Field(1, gt=0, description="Groups whose experts a token may go to.")
        group_score: Literal["best", "best-two"] = Field(
            "best-two", description="How good a group is: its best score, or the sum of its two best."
        )
        normalise: bool = Field(True, description="Whether a token's weights are divided by their sum.")
        scale: float = Field(1.0, gt=0, description="Factor of the weights, applied last.")
        weigh: Literal["output", "input"] = Field(
            "output", description="Whether weights multiply what experts give, or what they are given (Llama 4)."
        )

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Greedy unless a bias or groups have a say."""
        free = not config.selection_bias and config.groups == config.groups_kept
        return frozenset({"greedy"} if free else ())

    @classmethod
    def parameter_count(cls, config: Any, dim: int, experts: int) -> int:
        """``experts · dim``, and biases."""
        return experts * (dim + int(config.bias))

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        _check_counts(config, experts)
        self.chosen = config.chosen
        self.weight = declare(self, "weight", (experts, dim), ParameterInfo("router", fan_in=dim))
        if config.bias:
            declare(self, "bias", (experts,), ParameterInfo("bias", constant=0.0))
        else:
            self.register_parameter("bias", None)
        if config.selection_bias:
            self.register_buffer("selection_bias", torch.zeros(experts))

    def forward(self, x: Float[Tensor, "tokens dim"]) -> Routing:
        """Choose experts for every token."""
        config, dtype = self.config, torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.to(dtype)
            logits = F.linear(x.to(dtype), self.weight.to(dtype), bias)
        scores = logits.softmax(-1) if config.score == "softmax" else logits.sigmoid()
        experts = self._choose(logits.detach(), scores.detach())
        # A sigmoid looks at one logit only, so that both orders are the same.
        among_chosen = config.score == "softmax" and config.order == "top-k-then-score"
        weights = logits.gather(-1, experts).softmax(-1) if among_chosen else scores.gather(-1, experts)
        if config.normalise:
            weights = weights / (weights.sum(-1, keepdim=True) + TINY)
        probabilities = scores if config.score == "softmax" else scores / (scores.sum(-1, keepdim=True) + TINY)
        return Routing(experts, weights * config.scale, probabilities, logits, config.weigh)

    def reference(self, x: Float[Tensor, "tokens dim"]) -> Routing:
        """The definition, token by token in plain numbers."""
        found = [self._routed(token.double()) for token in x]
        experts, *others = zip(*found, strict=True)
        weights, probabilities, logits = (torch.tensor(numbers, dtype=torch.float64) for numbers in others)
        return Routing(torch.tensor(experts), weights, probabilities, logits, self.config.weigh)

    def _routed(self, token: Float[Tensor, " dim"]) -> tuple[list[int], list[float], list[float], list[float]]:
        """Experts, their weights, all probabilities and all logits of one token."""
        config, biases = self.config, [0.0] * self.experts if self.bias is None else self.bias.tolist()
        logits = [float(row.double().dot(token)) + bias for row, bias in zip(self.weight, biases, strict=True)]
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        softmax = [value / sum(exponentials) for value in exponentials]
        sigmoid = [1 / (1 + math.exp(-logit)) for logit in logits]
        scores = softmax if config.score == "softmax" else sigmoid
        handicap = [0.0] * self.experts if self.selection_bias is None else self.selection_bias.tolist()
        rank = [score + more for score, more in zip(scores, handicap, strict=True)]
        size = self.experts // config.groups
        groups = [range(first, first + size) for first in range(0, self.experts, size)]
        counted = 2 if config.group_score == "best-two" else 1
        groups.sort(key=lambda group: -sum(sorted((rank[e] for e in group), reverse=True)[:counted]))
        able = [expert for group in groups[: config.groups_kept] for expert in group]
        experts = sorted(able, key=lambda expert: -rank[expert])[: config.chosen]
        weights = [scores[expert] for expert in experts]
        if config.score == "softmax" and config.order == "top-k-then-score":
            weights = [weight / sum(weights) for weight in weights]
        if config.normalise:
            weights = [weight / sum(weights) for weight in weights]
        probabilities = [score / sum(scores) for score in scores]
        return experts, [weight * config.scale for weight in weights], probabilities, logits

    def _choose(
        self, logits: Float[Tensor, "tokens experts"], scores: Float[Tensor, "tokens experts"]
    ) -> Int[Tensor, "tokens chosen"]:
        """The best experts of the best groups."""
        config = self.config
        if self.selection_bias is not None:
            scores = scores + self.selection_bias
        if config.groups_kept < config.groups:
            scores = scores.masked_fill(~self._kept(scores), float("-inf"))
        elif self.selection_bias is None:
            scores = logits  # in the order of the scores, and still apart where those are rounded to one
        return scores.topk(config.chosen, dim=-1).indices

    def _kept(self, scores: Float[Tensor, "tokens experts"]) -> Bool[Tensor, "tokens experts"]:
        """Which experts are in a token's best groups."""
        config, grouped = self.config, scores.unflatten(-1, (self.config.groups, -1))
        counted = min(2 if config.group_score == "best-two" else 1, grouped.shape[-1])
        best = grouped.topk(counted, dim=-1).values.sum(-1).topk(config.groups_kept, dim=-1).indices
        kept = torch.zeros_like(grouped[..., 0], dtype=torch.bool).scatter(-1, best, True)
        return kept[..., None].expand_as(grouped).flatten(-2)


def _check_counts(config: Any, experts: int) -> None:
    """Refuse what can't be chosen.

    Raises:
        UserError: too few experts, or groups that don't come out even.
    """
    if experts % config.groups or config.groups_kept > config.groups:
        raise UserError(
            f"the router keeps {config.groups_kept} of {config.groups} groups of {experts} experts",
            remedy="Choose router.groups that divide experts, and keep no more than there are.",
            code="groups-do-not-divide",
        )
    among = experts // config.groups * config.groups_kept
    if config.chosen > among:
        limited = f", those of {config.groups_kept} groups" if config.groups > 1 else ""
        raise UserError(
            f"the router chooses {config.chosen} of only {among} experts{limited}",
            remedy="Lower router.chosen, or raise experts or router.groups_kept.",
            code="more-chosen-than-experts",
        )
