"""Llama 3.1's scaling of rotary frequencies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Count, Problem, Scaling


class Llama3Scaling(Scaling):
    """Divides low frequencies by a factor and keeps high ones (Llama team, 2024, arXiv:2407.21783).

    A pair that turns r times over ``original_context`` tokens has its frequency kept where r > ``high_factor``,
    divided by ``factor`` where r < ``low_factor``, and between them mixed in proportion to r; the two may be equal, as
    in Llama 4.
    """

    class Config(ComponentConfig):
        """Options."""

        factor: float = Field(ge=1, description="Divisor of the low frequencies.")
        original_context: Count = Field(gt=0, description="Tokens that the model was trained to read.")
        low_factor: float = Field(1.0, gt=0, description="Turns over that context below which a frequency is low.")
        high_factor: float = Field(4.0, gt=0, description="Turns over that context above which a frequency is high.")

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """The ramp must not fall."""
        if config.low_factor > config.high_factor:
            yield Problem(
                ("low_factor",),
                f"low_factor {config.low_factor:g} is above high_factor {config.high_factor:g}",
                "Lower low_factor, or raise high_factor.",
                "low-factor-above-high",
            )

    def frequencies(
        self, device: torch.device | None = None, lengths: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "*tokens pairs"]:
        """``ω`` for high, ``ω / factor`` for low frequencies, and a mixture between."""
        base, low, high = self.ladder.frequencies(device), self.config.low_factor, self.config.high_factor
        turns = self.config.original_context * base / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1) if low < high else (turns >= low).to(turns.dtype)
        return base * (kept + (1 - kept) / self.config.factor)
