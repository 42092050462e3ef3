"""The scalar head."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Embedding, Head, Linear, ModelContext


class Scalar(Head):
    """One number per token: a value, or a reward.

    Read at every token it is the value function of reinforcement learning; read at the last real token it is the
    reward of a conversation (Ouyang et al., 2022, arXiv:2203.02155).
    """

    reads: ClassVar[Literal["scalar"]] = "scalar"

    class Config(ComponentConfig):
        """Options."""

        bias: bool = Field(False, description="Whether a constant is added.")

    @classmethod
    def parameter_count(cls, config: Any, model: ModelContext, embedding: Embedding) -> int:
        """``dim``, and the bias."""
        return int(model.dim + int(config.bias))

    def __init__(self, config: Any, model: ModelContext, embedding: Embedding) -> None:
        super().__init__(config, model, embedding)
        self.linear = Linear(model.dim, 1, bias=config.bias, role="head")

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    def forward(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... outputs"]:
        """Compute the number."""
        value: Tensor = self.linear(hidden)
        return value
