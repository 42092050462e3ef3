"""Dynamic scaling of rotary frequencies: a base that grows with the length."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Count, Ladder, Scaling


class DynamicScaling(Scaling):
    """Raises the base as documents outgrow the trained context (Peng et al., 2023, arXiv:2309.00071).

    Known as dynamic NTK. Beyond ``original_context`` a document of length S is turned with ``theta · c^(d/(d−2))`` in
    place of theta, where ``c = factor · S / original_context − (factor − 1)`` and d is the number of rotated features:
    the lowest frequency is divided by c, the highest is kept.

    transformers takes the longest position of a whole batch for S, past included, and keeps a grown base until a
    short batch comes; here S is the length of each token's own document, and nothing is remembered. For one document
    in one call both are the same. In both, keys that were stored keep the frequencies of their time.
    """

    class Config(ComponentConfig):
        """Options."""

        factor: float = Field(ge=1, description="How steeply the base grows with the length.")
        original_context: Count = Field(gt=0, description="Tokens up to which nothing changes.")

    def __init__(self, config: Any, ladder: Ladder) -> None:
        super().__init__(config, ladder)
        if ladder.rotated < 4:
            raise UserError(
                "dynamic scaling needs two pairs of rotated features: it keeps one and slows the other",
                remedy="Raise head_dim or fraction, or choose another scaling.",
                code="scaling-needs-two-pairs",
            )
        self.constant_up_to = config.original_context

    def frequencies(
        self, device: torch.device | None = None, lengths: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "*tokens pairs"]:
        """``ω_j · c^(−2j/(d−2))``."""
        base = self.ladder.frequencies(device)
        if lengths is None:
            return base
        factor, original = self.config.factor, self.config.original_context
        growth = factor * lengths.clamp(min=original).to(torch.float64) / original - (factor - 1)
        pair = torch.arange(0, self.ladder.rotated, 2, dtype=torch.float64, device=device)
        return base * torch.pow(growth[..., None], -pair / (self.ladder.rotated - 2))
