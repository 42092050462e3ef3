"""Routers that are wrong in one way."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.feedforward import Router, Routing
from corelm.kinds.parameters import ParameterInfo, declare


@reference
class BestTwo(Router):
    """Softmax, best two, normalised."""

    class Config(ComponentConfig):
        """Options."""

        normalise: bool = Field(True, description="Whether weights sum to one.")
        selection_bias: bool = Field(False, description="Whether a constant is added when experts are chosen.")

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Greedy without a bias."""
        return frozenset(() if config.selection_bias else {"greedy"})

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        self.weight = declare(self, "weight", (experts, dim), ParameterInfo("router", fan_in=dim))
        if config.selection_bias:
            self.register_buffer("selection_bias", torch.zeros(experts))

    def logits(self, x: Tensor) -> Tensor:
        """Scores of all experts."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        return x.to(dtype) @ self.weight.to(dtype).T

    def probabilities(self, x: Tensor) -> Tensor:
        """Of all experts."""
        return self.logits(x).softmax(-1)

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and experts."""
        bias = 0.0 if self.selection_bias is None else self.selection_bias
        experts = (probabilities + bias).topk(2, dim=-1).indices
        return probabilities.gather(-1, experts), experts

    def forward(self, x: Tensor) -> Routing:
        """Route."""
        probabilities = self.probabilities(x)
        weights, experts = self.choose(probabilities)
        if self.config.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return self.routing(experts, weights, probabilities, x)

    def routing(self, experts: Tensor, weights: Tensor, probabilities: Tensor, x: Tensor) -> Routing:
        """Put together."""
        return Routing(experts, weights, probabilities, self.logits(x))


@plant("choices_are_valid", "the best expert is taken twice")
class SameExpertTwice(BestTwo):
    """Doubled."""

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        weights, experts = super().choose(probabilities)
        return weights, experts[:, :1].expand(-1, 2)


@plant("probabilities_sum_to_one", "sigmoids that nobody divides")
class LooseSigmoids(BestTwo):
    """Not a distribution."""

    def probabilities(self, x: Tensor) -> Tensor:
        return self.logits(x).sigmoid()


@plant("tokens_are_independent", "the softmax is over tokens")
class SoftmaxOverTokens(BestTwo):
    """Wrong axis."""

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        weights, experts = (probabilities / probabilities.sum(0, keepdim=True)).topk(2, dim=-1)
        return weights, experts


@plant("weights_follow_probabilities", "weights in the wrong order")
class WeightsReversed(BestTwo):
    """Paired with the other expert."""

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        weights, experts = super().choose(probabilities)
        return weights.flip(-1), experts


@plant("scores_in_float32", "scores in the dtype of the tokens")
class LowPrecisionScores(BestTwo):
    """bfloat16."""

    def logits(self, x: Tensor) -> Tensor:
        return (x @ self.weight.to(x.dtype).T).to(torch.promote_types(x.dtype, torch.float32))


@plant("greedy_as_offered", "the least probable experts are chosen")
class WorstTwo(BestTwo):
    """Ascending."""

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        weights, experts = probabilities.topk(2, dim=-1, largest=False)
        return weights, experts


@plant("greedy_as_offered", "sigmoids are ranked, of which a loud token has several that are rounded to one")
class TiedSigmoids(BestTwo):
    """The lower number wins."""

    def probabilities(self, x: Tensor) -> Tensor:
        scores = self.logits(x).sigmoid()
        return scores / scores.sum(-1, keepdim=True).clamp(min=1e-300)


@plant("weights_sum_as_promised", "the scale is divided away again")
class ScaledTooEarly(BestTwo):
    """Before the division."""

    class Config(BestTwo.Config):
        """Options."""

        scale: float = Field(2.5, gt=0, description="Factor of the weights.")

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        weights, experts = super().choose(probabilities)
        return weights * self.config.scale, experts


@plant("selection_bias_only_selects", "weights are the biased scores")
class BiasedWeights(BestTwo):
    """Not gathered again."""

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        bias = 0.0 if self.selection_bias is None else self.selection_bias
        weights, experts = (probabilities + bias).topk(2, dim=-1)
        return weights, experts


@plant("selection_bias_only_selects", "the bias repels")
class RepellingBias(BestTwo):
    """Wrong sign."""

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        bias = 0.0 if self.selection_bias is None else self.selection_bias
        experts = (probabilities - bias).topk(2, dim=-1).indices
        return probabilities.gather(-1, experts), experts


@plant("selection_bias_only_selects", "the option is read and forgotten")
class ForgottenBias(BestTwo):
    """Taken, not used."""

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        self.selection_bias = None


@plant("greedy_as_offered", "a selection bias is there though nobody asked for it")
class UnaskedBias(BestTwo):
    """Always registered; a checkpoint fills it."""

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        self.register_buffer("selection_bias", torch.zeros(experts))


@reference
class BestTwoOfGroups(BestTwo):
    """The best two within the groups with the best sum of two."""

    class Config(BestTwo.Config):
        """Options."""

        score: Literal["softmax"] = Field("softmax", description="How logits become weights.")
        groups: int = Field(1, gt=0, description="Groups that compete first.")
        groups_kept: int = Field(1, gt=0, description="Groups that are left.")
        group_score: Literal["best-two"] = Field("best-two", description="How good a group is.")

    @classmethod
    def offers(cls, config: Any) -> frozenset[str]:
        """Greedy where groups have no say."""
        return super().offers(config) if config.groups == config.groups_kept else frozenset()

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        if experts % config.groups or config.groups_kept > config.groups or config.groups * 2 > experts:
            raise UserError("these groups don't come out even", remedy="Choose others.")

    def grouped(self, probabilities: Tensor) -> Tensor:
        """Experts of one group side by side, ``(tokens, groups, size)``."""
        return probabilities.unflatten(-1, (self.config.groups, -1))

    def group_of(self, expert: Tensor) -> Tensor:
        """Number of an expert's group."""
        return expert // (self.experts // self.config.groups)

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Within the best groups."""
        bias = 0.0 if self.selection_bias is None else self.selection_bias
        scores = probabilities + bias
        best = self.grouped(scores).topk(2, dim=-1).values.sum(-1).topk(self.config.groups_kept, dim=-1).indices
        group = self.group_of(torch.arange(self.experts, device=scores.device))
        kept = (group[None, :, None] == best[:, None]).any(-1)
        experts = scores.masked_fill(~kept, float("-inf")).topk(2, dim=-1).indices
        return probabilities.gather(-1, experts), experts


@plant("keeps_to_the_best_groups", "experts are dealt out to groups in turn")
class DealtGroups(BestTwoOfGroups):
    """Modulo."""

    def grouped(self, probabilities: Tensor) -> Tensor:
        return probabilities.unflatten(-1, (-1, self.config.groups)).transpose(-1, -2)

    def group_of(self, expert: Tensor) -> Tensor:
        return expert % self.config.groups
