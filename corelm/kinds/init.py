"""Kind ``init``: draws parameters by role."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from corelm.kinds.carriers import ModelContext
from corelm.kinds.component import Component
from corelm.kinds.parameters import ParameterInfo


class Init(Component):
    """Draws the initial value of one parameter from its role and sizes.

    Built as ``Part(config, model: ModelContext)``.

    Contract:
        * ``draw`` fills the tensor in place, from the generator only. The caller seeds one generator per
          parameter *name*, so that adding a layer changes no other layer's values.
        * ``deviation`` is the standard deviation that draws have (before any truncation at three of them).
    """

    kind: ClassVar[str] = "init"

    def __init__(self, config: Any, model: ModelContext) -> None:
        self.config = config
        self.model = model

    @abstractmethod
    def deviation(self, name: str, info: ParameterInfo) -> float:
        """Standard deviation of this parameter's initial values."""

    def draw(self, name: str, info: ParameterInfo, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill ``tensor`` with its initial value."""
        with torch.no_grad():
            tensor.normal_(0.0, self.deviation(name, info), generator=generator)
