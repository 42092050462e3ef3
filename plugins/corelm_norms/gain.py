"""What rmsnorm and layernorm share: epsilon, and a learned gain that may be stored as its distance from one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Norm, ParameterInfo, Problem, declare


class GainedNorm(Norm):
    """A norm whose result is multiplied by one learned gain per feature."""

    class Config(ComponentConfig):
        """Options."""

        eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square under the root.")
        weight: bool = Field(True, description="Whether there is a learned gain per feature.")
        offset: bool = Field(False, description="Whether the weight w stands for the gain 1 + w, as in Gemma.")

    @classmethod
    def check(cls, config: Any, context: Any) -> Iterator[Problem]:
        """An offset needs a weight."""
        if config.offset and not config.weight:
            yield Problem(
                ("offset",),
                "offset is true, but there is no weight that it could belong to",
                "Leave out one of `offset: true` and `weight: false`.",
                "offset-without-weight",
            )

    @classmethod
    def parameter_count(cls, config: Any, dim: int) -> int:
        """``dim``."""
        return dim * int(config.weight)

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        if config.weight:
            declare(self, "weight", (dim,), ParameterInfo("norm", constant=0.0 if config.offset else 1.0))
        else:
            self.register_parameter("weight", None)

    @property
    def epsilon(self) -> float:
        """What is added to the mean square under the root."""
        return float(self.config.eps)

    def gain(self, dtype: torch.dtype) -> Float[Tensor, " dim"] | None:
        """What the normalised features are multiplied by, in this type; None for one."""
        if self.weight is None:
            return None
        weight = self.weight.to(dtype)
        return 1 + weight if self.config.offset else weight

    def reference(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """The definition, token by token in float64."""
        tokens = []
        for token in x.double().reshape(-1, self.dim):
            token = token - token.mean() if self.centred else token
            y = token / math.sqrt(float(token.square().sum()) / self.dim + self.epsilon)
            for feature in range(self.dim if self.weight is not None else 0):
                y[feature] *= float(self.weight[feature]) + (1 if self.config.offset else 0)
            bias = getattr(self, "bias", None)
            tokens.append(y if bias is None else y + bias.double())
        return torch.stack(tokens).view(x.shape)


def statistics_dtype(x: Tensor) -> torch.dtype:
    """The type that statistics of ``x`` are computed in: float32 or better."""
    return torch.promote_types(x.dtype, torch.float32)
