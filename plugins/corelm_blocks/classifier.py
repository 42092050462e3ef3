"""The classification head."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Embedding, Head, Linear, ModelContext


class Classifier(Head):
    """Logits of classes.

    Read at a sequence's last real token.
    """

    elementary = True

    reads: ClassVar[Literal["classes"]] = "classes"

    class Config(ComponentConfig):
        """Options."""

        classes: int = Field(2, ge=2, description="Number of classes.")
        bias: bool = Field(True, description="Whether there is a bias per class.")

    @classmethod
    def parameter_count(cls, config: Any, model: ModelContext, embedding: Embedding) -> int:
        """``classes · dim``, and biases."""
        return int(config.classes * (model.dim + int(config.bias)))

    def __init__(self, config: Any, model: ModelContext, embedding: Embedding) -> None:
        super().__init__(config, model, embedding)
        self.linear = Linear(model.dim, config.classes, bias=config.bias, role="head")

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return self.linear.outputs

    def forward(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... outputs"]:
        """Compute the logits."""
        logits: Tensor = self.linear(hidden)
        return logits
