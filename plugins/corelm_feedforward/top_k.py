"""The router that takes the k best experts."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, ParameterInfo, Router, Routing, declare


class TopKRouter(Router):
    """Sends each token to the k experts that a linear map prefers (Shazeer et al., 2017, arXiv:1701.06538).

    ``score-then-top-k`` scores all experts and takes the weights of the chosen; ``top-k-then-score`` scores the
    chosen among themselves. Scores are in float32 or better. ``probabilities`` always sum to one over all experts.
    """

    class Config(ComponentConfig):
        """Options."""

        chosen: int = Field(2, gt=0, description="Experts per token.")
        score: Literal["softmax", "sigmoid"] = Field("softmax", description="How logits become weights.")
        order: Literal["score-then-top-k", "top-k-then-score"] = Field(
            "score-then-top-k", description="Whether weights are taken among all experts, or among the chosen."
        )
        normalise: bool = Field(True, description="Whether a token's weights are divided by their sum.")
        scale: float = Field(1.0, gt=0, description="Factor of the weights, applied last.")

    def __init__(self, config: Any, dim: int, experts: int) -> None:
        super().__init__(config, dim, experts)
        if config.chosen > experts:
            raise UserError(
                f"the router chooses {config.chosen} of only {experts} experts",
                remedy="Lower router.chosen, or raise experts.",
                code="more-chosen-than-experts",
            )
        self.weight = declare(self, "weight", (experts, dim), ParameterInfo("router", fan_in=dim))

    def forward(self, x: Float[Tensor, "tokens dim"]) -> Routing:
        """Choose experts for every token."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(dtype), self.weight.to(dtype))
        best, experts = logits.topk(self.config.chosen, dim=-1)
        if self.config.score == "softmax":
            probabilities = logits.softmax(-1)
            among_chosen = self.config.order == "top-k-then-score"
            weights = best.softmax(-1) if among_chosen else probabilities.gather(-1, experts)
        else:
            # A sigmoid looks at one logit only, so that both orders are the same.
            scores = logits.sigmoid()
            probabilities = scores / scores.sum(-1, keepdim=True)
            weights = best.sigmoid()
        if self.config.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return Routing(experts, weights * self.config.scale, probabilities, logits)
