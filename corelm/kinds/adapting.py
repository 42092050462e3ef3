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


def adapt_model(
    module: nn.Module, adapter: Spec[Adapter], *, targets: Sequence[str] = (), seed: int
) -> dict[str, Any]:
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


def additions(module: nn.Module, record: Mapping[str, Any]) -> dict[str, nn.Parameter]:
    """The parameters that a record's adapter added, by name: what there is to train."""
    names = [f"{name}." for name in record["modules"]]
    inside = {n: p for n, p in module.named_parameters() if n.startswith(tuple(names))}
    return {n: p for n, p in inside.items() if not n.startswith(tuple(f"{name}base." for name in names))}


def frozen(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that adapters have wrapped and that therefore never change."""
    bases = tuple(f"{name}.base." for name, child in module.named_modules() if isinstance(child, AdaptedLinear))
    return frozenset(name for name, _ in module.named_parameters() if bases and name.startswith(bases))


def merge_model(module: nn.Module, record: Mapping[str, Any]) -> None:
    """Replace the maps that a record's adapter wrapped by linear maps that compute the same."""
    for name in record["modules"]:
        child = module.get_submodule(name)
        assert isinstance(child, AdaptedLinear)
        module.set_submodule(name, child.merged())


def _wrap(module: nn.Module, adapter: Spec[Adapter], names: Sequence[str], seed: int) -> None:
    part = adapter.build()
    for name in names:
        linear = module.get_submodule(name)
        if not isinstance(linear, Linear):
            raise UserError(f"{name} is no linear map that can be wrapped", code="adapter-target")
        value = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1
        module.set_submodule(name, part.wrap(linear, name, torch.Generator().manual_seed(value)))
