"""Token embeddings."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from corelm.kinds import (
    ComponentConfig,
    Embedding,
    Linear,
    ModelContext,
    Norm,
    ParameterInfo,
    Spec,
    declare,
    parameter_count,
)


class TokenEmbedding(Embedding):
    """A learned vector per token.

    Optionally of another width than the model and projected to it (OPT), scaled by √dim or a number (Vaswani et al.,
    2017, arXiv:1706.03762), normalised (BLOOM), dropped out. In this order: look up, project, scale, norm, dropout.
    The scale is not rounded to the table's type first, as it is in Gemma's code; in float32 there is no difference.
    """

    class Config(ComponentConfig):
        """Options."""

        width: int | None = Field(None, gt=0, description="Size of a token's vector; default: the model's dim.")
        scale: Literal["sqrt-dim"] | float | None = Field(None, description="What vectors are multiplied by.")
        norm: Spec[Norm] | None = Field(None, description="Norm of the vectors; none by default.")
        dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a feature.")

    @classmethod
    def settled(cls, config: Any, context: Any) -> Any:
        """The width that follows from ``dim``."""
        return config.model_copy(update={"width": config.width or context.dim})

    @classmethod
    def parameter_count(cls, config: Any, model: ModelContext) -> int:
        """``vocab_size · width``, the maps to ``dim`` and back where that is another, and the norm."""
        width = config.width or model.dim
        maps = 2 * width * model.dim if width != model.dim else 0
        return model.vocab_size * width + maps + parameter_count(config.norm, model.dim)

    def __init__(self, config: Any, model: ModelContext) -> None:
        super().__init__(config, model)
        width = config.width or model.dim
        self.weight = declare(self, "weight", (model.vocab_size, width), ParameterInfo("embedding"))
        self.project_in = Linear(width, model.dim) if width != model.dim else None
        self.project_out = Linear(model.dim, width) if width != model.dim else None
        self.norm: Norm | None = config.norm.build(model.dim) if config.norm else None
        self.factor = math.sqrt(model.dim) if config.scale == "sqrt-dim" else config.scale

    @property
    def table(self) -> nn.Parameter:
        """The table that heads may tie to."""
        return self.weight

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        """Look the ids up."""
        x = F.embedding(ids, self.weight)
        if self.project_in is not None:
            x = self.project_in(x)
        if self.factor is not None:
            x = x * self.factor
        if self.norm is not None:
            x = self.norm(x)
        return F.dropout(x, self.config.dropout, self.training)

    def unproject(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Map hidden states to the width of the table."""
        return hidden if self.project_out is None else self.project_out(hidden)

    def reference(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        """The definition, token by token, without dropout."""
        rows = []
        for token in ids.flatten().tolist():
            x = self.weight[token]
            if self.project_in is not None:
                x = self.project_in.weight @ x
            if self.config.scale is not None:
                x = x * (self.model.dim**0.5 if self.config.scale == "sqrt-dim" else self.config.scale)
            rows.append(x if self.norm is None else self.norm(x))
        return torch.stack(rows).unflatten(0, ids.shape)
