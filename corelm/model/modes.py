"""Evaluation mode for the length of a ``with`` block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from corelm.kinds.arithmetic import float32_products


@contextlib.contextmanager
def evaluating(model: nn.Module, modules: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """No dropout, no gradients, fast products; afterwards every module's mode is as it was before.

    Never hold it over a ``yield``: gradients are off for the whole thread. ``modules`` are the model's, for callers
    that come again and again: finding them takes a while.
    """
    training = [module for module in (model.modules() if modules is None else modules) if module.training]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        if training:
            model.eval()
        with torch.no_grad(), float32_products(device):
            yield
    finally:
        for module in training:
            module.training = True
