"""What an assembled model costs: the sum of what its parts say."""

from __future__ import annotations

from dataclasses import replace

import torch

from corelm.kinds.cost import Cost, Work, cost_of, state_bytes
from corelm.kinds.mask import MaskView
from corelm.model.language_model import LanguageModel


def costs(model: LanguageModel, work: Work) -> dict[str, Cost]:
    """What one forward pass takes, head included, by section of the model; each layer under its own mask's window."""
    found = {name: cost_of(child, work) for name, child in model.named_children() if name != "layers"}
    windows = [MaskView(rules).window for rules in model.rules]
    layers = [
        cost_of(layer, replace(work, window=window)) for layer, window in zip(model.layers, windows, strict=True)
    ]
    return {**found, "layers": sum(layers, Cost())}


def operations(model: LanguageModel, time: int) -> dict[str, int]:
    """Floating-point operations of one row of this many tokens in training, by section, those without any left out."""
    return {name: cost.operations for name, cost in costs(model, Work(1, time)).items() if cost.operations}


def state_size(model: LanguageModel, tokens: int, dtype: torch.dtype, device: str) -> int:
    """Bytes that the state of one row takes after this many tokens; see ``state_bytes``."""
    return sum(state_bytes(slots, tokens, dtype, device) for slots in model.slot_specs)
