"""Scalings of rotary frequencies that are wrong in one way."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from corelm.conformance.planted import plant, reference
from corelm.kinds.component import ComponentConfig
from corelm.kinds.position import Ladder, Scaling


@reference
class Slower(Scaling):
    """Divides all frequencies."""

    formula = "linear"

    class Config(ComponentConfig):
        """Options."""

        factor: float = Field(4.0, ge=1, description="By what.")

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        """ω / factor."""
        return self.ladder.frequencies(device) / self.config.factor


@reference
class SlowerWhenLong(Scaling):
    """Divides the frequencies of long documents by their length."""

    class Config(ComponentConfig):
        """Options."""

        short: int = Field(8, gt=1, description="Tokens up to which nothing changes.")

    def __init__(self, config: Any, ladder: Ladder) -> None:
        super().__init__(config, ladder)
        self.constant_up_to = config.short

    def times(self, lengths: Tensor) -> Tensor:
        """How many times longer."""
        return (lengths / self.config.short).clamp(min=1)

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        """ω · short / length."""
        base = self.ladder.frequencies(device)
        return base if lengths is None else base / self.times(lengths)[..., None].double()


@plant("one_per_pair", "a frequency for every feature")
class OnePerFeature(Slower):
    """Twice as many."""

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        return super().frequencies(device, lengths).repeat(2)


@plant("constant_as_declared", "begins one token early")
class BeginsEarly(SlowerWhenLong):
    """Off by one."""

    def times(self, lengths: Tensor) -> Tensor:
        return super().times(lengths + 1)


@plant("tokens_have_their_own", "the longest document of the batch decides for all (transformers)")
class LongestOfAll(SlowerWhenLong):
    """Batch mates matter."""

    def times(self, lengths: Tensor) -> Tensor:
        return super().times(lengths.max().expand(lengths.shape))


@plant("formula_of_its_name", "the factor multiplies")
class Faster(Slower):
    """The wrong way."""

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        return self.ladder.frequencies(device) * self.config.factor


@plant("attention_factor_of_its_name", "what slows frequencies is applied to the features too")
class Louder(Slower):
    """Twice."""

    def __init__(self, config: Any, ladder: Ladder) -> None:
        super().__init__(config, ladder)
        self.attention_factor = 1.0 + float(config.factor)


@plant("settled_stands_alone", "the factor follows from the model's context, and is never written out")
class LeftOpen(Scaling):
    """As long as whoever reads it is."""

    class Config(ComponentConfig):
        """Options."""

        factor: float | None = Field(None, ge=1, description="By what; default: the context over 16.")

    def frequencies(self, device: torch.device | None = None, lengths: Tensor | None = None) -> Tensor:
        return self.ladder.frequencies(device) / (self.config.factor or max(1.0, self.ladder.context / 16))
