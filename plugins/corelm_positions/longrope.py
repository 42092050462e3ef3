"""LongRoPE's scaling of rotary frequencies."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Count, Ladder, Scaling
from corelm_positions.stretching import stretch

Divisor = Annotated[float, Field(gt=0)]


class LongRopeScaling(Scaling):
    """Divides each frequency by a number of its own, found by search (Ding et al., 2024, arXiv:2402.13753).

    Documents of up to ``original_context`` tokens take ``short_factor``, longer ones ``long_factor``: one number per
    pair, or one for all. Turned features are multiplied by ``attention_factor``, by default
    ``√(1 + ln(factor) / ln(original_context))``.

    transformers chooses by the longest position of a whole batch; here each token's own document decides. For one
    document in one call both are the same. Keys that were stored keep the frequencies of their time; some models of
    transformers forget the state instead when generation crosses ``original_context``, and compute it anew.
    """

    class Config(ComponentConfig):
        """Options."""

        original_context: Count = Field(gt=1, description="Longest document that takes short_factor.")
        short_factor: Divisor | list[Divisor] = Field(description="Divisors for documents up to that length.")
        long_factor: Divisor | list[Divisor] = Field(description="Divisors for longer documents.")
        factor: float | None = Field(
            None, ge=1, description="How many times longer; default: the model's context over original_context."
        )
        attention_factor: float | None = Field(None, gt=0, description="Factor of the turned features.")

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The factor that follows from the context."""
        return config.model_copy(
            update={"factor": config.factor or stretch(context.context, config.original_context)}
        )

    def __init__(self, config: Any, ladder: Ladder) -> None:
        super().__init__(config, ladder)
        for name in ("short_factor", "long_factor"):
            given = getattr(config, name)
            if isinstance(given, list) and len(given) != ladder.rotated // 2:
                raise UserError(
                    f"{name} has {len(given)} numbers for {ladder.rotated // 2} pairs of rotated features",
                    remedy="Give one number per pair, or one for all.",
                    code="longrope-factors-do-not-fit",
                )
        self.constant_up_to = config.original_context
        factor = config.factor or stretch(ladder.context, config.original_context)
        usual = math.sqrt(1 + math.log(factor) / math.log(config.original_context))
        self.attention_factor = config.attention_factor or usual

    def frequencies(
        self, device: torch.device | None = None, lengths: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "*tokens pairs"]:
        """``ω / short_factor``, or ``ω / long_factor`` for tokens of longer documents."""
        base = self.ladder.frequencies(device)
        short, long = (
            base / torch.tensor(divisors, dtype=torch.float64, device=device)
            for divisors in (self.config.short_factor, self.config.long_factor)
        )
        if lengths is None:
            return short
        return torch.where(lengths[..., None] > self.config.original_context, long, short)
