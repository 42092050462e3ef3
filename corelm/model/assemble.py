"""From a model section to a model."""

from __future__ import annotations

import torch

from corelm.model.config import ModelConfig
from corelm.model.initialising import initialise
from corelm.model.language_model import LanguageModel

__all__ = ["assemble", "initialise"]


def assemble(
    config: ModelConfig,
    vocab_size: int,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LanguageModel:
    """Build a model without drawing its parameters; on ``meta`` nothing is allocated.

    Args:
        config: the model section.
        vocab_size: rows of the embedding where the section doesn't say.
        device: of the parameters.
        dtype: of the parameters.
    """
    with torch.device(device):
        model = LanguageModel(config, config.vocab_size or vocab_size)
    return model.to(dtype)
