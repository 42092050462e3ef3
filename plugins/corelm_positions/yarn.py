"""YaRN's scaling of rotary frequencies."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, Count, Ladder, Scaling
from corelm_positions.stretching import stretch


class YarnScaling(Scaling):
    """Divides slow frequencies by a factor and keeps fast ones (Peng et al., 2023, arXiv:2309.00071).

    Pairs that turn more than ``beta_fast`` times over ``original_context`` tokens keep their frequency, those that
    turn less than ``beta_slow`` times have it divided by ``factor``; in between the share falls linearly with the
    pair's number. ``truncate`` widens that range to whole pairs.

    Turned features are multiplied by ``attention_factor``; by default by g(1), or by g(mscale) / g(mscale_all_dim)
    where both are given, with ``g(m) = 0.1 · m · ln(factor) + 1``. DeepSeek's models multiply the scale of their scores
    by ``g(mscale_all_dim)²`` besides, which is for their attention to do: ``scale`` is that over √head_dim.
    """

    class Config(ComponentConfig):
        """Options."""

        factor: float | None = Field(
            None, ge=1, description="How many times longer; default: the model's context over original_context."
        )
        original_context: Count = Field(gt=0, description="Tokens that the model was trained to read.")
        beta_fast: float = Field(32.0, gt=0, description="Turns over that context above which a frequency is kept.")
        beta_slow: float = Field(1.0, gt=0, description="Turns over that context below which it is divided.")
        truncate: bool = Field(True, description="Whether the range between begins and ends at whole pairs.")
        attention_factor: float | None = Field(None, gt=0, description="Factor of the turned features.")
        mscale: float | None = Field(None, gt=0, description="Growth of that factor, above the line.")
        mscale_all_dim: float | None = Field(None, gt=0, description="Growth of that factor, below the line.")

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The factor that follows from the context."""
        return config.model_copy(
            update={"factor": config.factor or stretch(context.context, config.original_context)}
        )

    def __init__(self, config: Any, ladder: Ladder) -> None:
        super().__init__(config, ladder)
        if ladder.theta <= 1:
            raise UserError(
                f"yarn tells pairs apart by their frequency; with theta {ladder.theta:g} none is slower than another",
                remedy="Raise theta above 1.",
                code="yarn-without-ladder",
            )
        self.factor = config.factor or stretch(ladder.context, config.original_context)
        if config.attention_factor is not None:
            self.attention_factor = config.attention_factor
        elif config.mscale is not None and config.mscale_all_dim is not None:
            self.attention_factor = self._magnitude(config.mscale) / self._magnitude(config.mscale_all_dim)
        else:
            self.attention_factor = self._magnitude(1.0)

    def _magnitude(self, mscale: float) -> float:
        return 0.1 * mscale * math.log(self.factor) + 1.0

    def _pair_with(self, turns: float) -> float:
        """Number of the pair that turns so many times over the original context; not a whole one."""
        longest_period = self.config.original_context / (2 * math.pi * turns)
        return self.ladder.rotated * math.log(longest_period) / (2 * math.log(self.ladder.theta))

    def frequencies(
        self, device: torch.device | None = None, lengths: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "*tokens pairs"]:
        """``ω · (kept + (1 − kept) / factor)``, kept falling from 1 to 0 between two pairs."""
        first, last = self._pair_with(self.config.beta_fast), self._pair_with(self.config.beta_slow)
        if self.config.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.ladder.rotated - 1)
        if first == last:
            last += 0.001  # a step
        base = self.ladder.frequencies(device)
        pair = torch.arange(len(base), dtype=torch.float64, device=device)
        kept = 1 - ((pair - first) / (last - first)).clamp(0, 1)
        return base * (kept + (1 - kept) / self.factor)
