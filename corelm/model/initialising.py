"""Initial values: one random generator per parameter name, so that no parameter depends on another's being there."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from corelm.kinds.parameters import declared, fill

if TYPE_CHECKING:
    from corelm.model.stack import Stack


def initialise(model: Stack, seed: int, *, only: str = "") -> None:
    """Draw every parameter whose name starts with ``only``, in float32 on the CPU whatever its device.

    Parameters with a constant initial value get that.
    """
    init = model.config.init.build(model.facts)
    for name, parameter, info in declared(model):
        if not name.startswith(only):
            continue
        if info.constant is not None:
            fill(parameter, info.constant)
            continue
        value = torch.empty(parameter.shape, dtype=torch.float32)
        init.draw(name, info, value, generator(seed, name))
        with torch.no_grad():
            parameter.copy_(value)


def generator(seed: int, name: str) -> torch.Generator:
    """The generator of one name."""
    value = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(value)
