"""The language-model head."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from corelm.kinds import (
    ComponentConfig,
    Cost,
    Embedding,
    Head,
    ModelContext,
    ParameterInfo,
    Work,
    declare,
    linear,
    plain_cost,
)


class LanguageModelHead(Head):
    """Logits of the next token.

    Tied to the embedding's table (Press & Wolf, 2016, arXiv:1608.05859) or with a matrix of its own, of the table's
    width. Order: project to that width where it isn't the model's (OPT), multiply, add the bias, scale, cap:
    ``softcap · tanh(logits / softcap)`` (Gemma Team, 2024, arXiv:2408.00118).
    """

    reads: ClassVar[Literal["vocabulary"]] = "vocabulary"

    class Config(ComponentConfig):
        """Options."""

        tied: bool = Field(True, description="Whether the matrix is the embedding's table.")
        bias: bool = Field(False, description="Whether there is a bias per token.")
        scale: float = Field(1.0, gt=0, description="What logits are multiplied by.")
        softcap: float | None = Field(None, gt=0, description="Largest magnitude of a logit, approached smoothly.")

    @classmethod
    def parameter_count(cls, config: Any, model: ModelContext, embedding: Embedding) -> int:
        """``vocab_size · width`` unless tied, and the bias."""
        return model.vocab_size * ((0 if config.tied else embedding.table.shape[1]) + int(config.bias))

    def cost(self, work: Work) -> Cost:
        """``2 · vocab_size · width`` operations per token, tied or not."""
        (embedding,) = self.beside
        size = embedding.table.numel() if self.config.tied else 0
        return plain_cost(self, work) + Cost(2 * work.tokens * size, size * embedding.table.element_size())

    def __init__(self, config: Any, model: ModelContext, embedding: Embedding) -> None:
        super().__init__(config, model, embedding)
        # In a tuple the embedding is not a sub-module of the head, and still goes along when the model is copied.
        self.beside = (embedding,)
        if not config.tied:
            width = embedding.table.shape[1]
            self.weight = declare(self, "weight", (model.vocab_size, width), ParameterInfo("head", fan_in=width))
        self.bias: nn.Parameter | None
        if config.bias:
            self.bias = declare(self, "bias", (model.vocab_size,), ParameterInfo("bias", constant=0.0))
        else:
            self.register_parameter("bias", None)

    @property
    def outputs(self) -> int:
        """Size of the vocabulary."""
        return self.model.vocab_size

    def forward(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... outputs"]:
        """Compute the logits."""
        (embedding,) = self.beside
        weight = embedding.table if self.config.tied else self.weight
        logits = linear(embedding.unproject(hidden), weight, self.bias)
        if self.config.scale != 1.0:
            logits = logits * self.config.scale
        if self.config.softcap is not None:
            logits = torch.tanh(logits / self.config.softcap) * self.config.softcap
        return logits

    def reference(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... outputs"]:
        """The definition, a logit at a time."""
        (embedding,) = self.beside
        inside = embedding.unproject(hidden)
        logits = hidden.new_zeros(*hidden.shape[:-1], self.outputs)
        for token, row in enumerate(embedding.table if self.config.tied else self.weight):
            logit = (inside * row).sum(-1) + (0.0 if self.bias is None else self.bias[token])
            logits[..., token] = logit * self.config.scale
        cap = self.config.softcap
        return logits if cap is None else cap * (2 / (1 + (-2 * logits / cap).exp()) - 1)
