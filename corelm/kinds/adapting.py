"""Adapting a whole model: which maps are wrapped, the record that rebuilds them, and merging back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from corelm.errors import UserError
from corelm.kinds.adapter import AdaptedLinear, Adapter
from corelm.kinds.component import Spec
from corelm.kinds.parameters import Linear
from corelm.kinds.quantizing import chosen


def adapt_model(module: nn.Module, adapter: Spec[Adapter], *, targets: Sequence[str] = (), seed: int) -> dict[str, Any]:
    """Wrap linear maps in place and return the record for ``model.json``.

    Args:
        module: the model.
        adapter: the method.
        targets: patterns of module names; none: every linear map of the layers.
        seed: of the additions' initial values, with each map's name.

    Raises:
        UserError: a pattern matches nothing.
    """
    names = [name for name, _ in chosen(module, targets)]
    _wrap(module, adapter, names, seed)
    return {"adapter": adapter.dump(), "modules": names, "seed": seed}


def rebuild(module: nn.Module, record: Mapping[str, Any]) -> None:
    """Wrap the maps that a record names; their tensors are loaded afterwards."""
    _wrap(module, Spec.read("adapter", record["adapter"]), record["modules"], record["seed"])


def merge_model(module: nn.Module) -> int:
    """Replace every wrapped map by one linear map that computes the same; returns how many."""
    names = [name for name, child in module.named_modules() if isinstance(child, AdaptedLinear)]
    for name in names:
        child = module.get_submodule(name)
        assert isinstance(child, AdaptedLinear)
        module.set_submodule(name, child.merged())
    return len(names)


def _wrap(module: nn.Module, adapter: Spec[Adapter], names: Sequence[str], seed: int) -> None:
    part = adapter.build()
    for name in names:
        linear = module.get_submodule(name)
        if not isinstance(linear, Linear):
            raise UserError(f"{name} is no linear map that can be wrapped", code="adapter-target")
        value = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1
        module.set_submodule(name, part.wrap(linear, name, torch.Generator().manual_seed(value)))
