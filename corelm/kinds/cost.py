"""What a part costs: parameters, arithmetic, and bytes that are read, as functions of shapes.

Most of it follows from what parts declare anyway: the roles of their parameters, and the slots of their state. A part
says more only where a token doesn't pass every map once, or where there are products that are no maps. Both methods
are optional, and what they say is held against what is counted:

* ``parameter_count(config, *place)``, a classmethod with the arguments that the part is built with: how many
  parameters it will have. Without it, the part is built on the meta device.
* ``cost(work)``: a ``Cost``. Any ``torch.nn.Module`` inside a part may have it. Without it, the cost is
  ``plain_cost``.

``corelm describe`` shows their docstrings, so that is where the formula stands in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from corelm.kinds.carriers import SlotSpec
from corelm.kinds.component import Spec
from corelm.kinds.parameters import ParameterInfo

_MAPS = frozenset({"matrix", "router", "head"})


@dataclass(frozen=True)
class Work:
    """Shapes of one forward pass.

    Attributes:
        batch: rows.
        time: new tokens of each.
        past: tokens that the state holds already; None: there is no state (training, scoring).
        window: of the layer's mask: how far back a query looks at most, itself included; None: any distance.
    """

    batch: int
    time: int
    past: int | None = None
    window: int | None = None

    @property
    def tokens(self) -> int:
        """New tokens of all rows."""
        return self.batch * self.time

    @property
    def keys(self) -> int:
        """Tokens of a row that softmax attention scores: the new ones, and those of the past that are still stored."""
        past = self.past or 0
        return self.time + (past if self.window is None else min(past, self.window - 1))

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key, those that the mask forbids included: most kernels compute them all.

        A causal kernel that leaves them out does about half of them in a long pass.
        """
        return self.tokens * self.keys


@dataclass(frozen=True)
class Cost:
    """What one forward pass takes.

    Attributes:
        operations: floating-point operations of matrix products and convolutions, a multiplication and the addition
            after it counted as two. What is done element by element is left out.
        reads: bytes of parameters that are read, each once.
    """

    operations: int = 0
    reads: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.operations + other.operations, self.reads + other.reads)


@runtime_checkable
class Costed(Protocol):
    """A module that says what it costs."""

    def cost(self, work: Work) -> Cost:
        """What one forward pass of it takes."""
        ...


def cost_of(module: nn.Module | None, work: Work) -> Cost:
    """What one forward pass of a module takes: what it says itself, or else its ``plain_cost``; nothing for None."""
    if module is None:
        return Cost()
    return module.cost(work) if isinstance(module, Costed) else plain_cost(module, work)


def plain_cost(module: nn.Module, work: Work) -> Cost:
    """The cost of a module in which every token passes every map once: of its own parameters and its children.

    A map of role ``matrix``, ``router`` or ``head`` takes ``2 · inputs · outputs`` operations per token; of a table of
    role ``embedding`` one row per token is read.
    """
    total = Cost()
    infos: dict[str, ParameterInfo] = module.__dict__.get("parameter_infos", {})
    for name, parameter in module.named_parameters(recurse=False):
        role = infos[name].role if name in infos else "vector"
        is_map = role in _MAPS and parameter.dim() > 1
        rows = min(len(parameter), work.tokens) if role == "embedding" else 1
        read = rows * parameter[0].numel() if role == "embedding" else parameter.numel()
        total += Cost(2 * work.tokens * parameter.numel() * is_map, read * parameter.element_size())
    return sum((cost_of(child, work) for child in module.children()), total)


def parameter_count(part: Spec[Any] | None, *place: Any) -> int:
    """How many parameters a part that isn't built yet will have; 0 for None.

    Args:
        part: the part and its config.
        place: what follows the config when it is built.
    """
    if part is None:
        return 0
    declared = getattr(part.part, "parameter_count", None)
    if declared is not None:
        return int(declared(part.config, *place))
    with torch.device("meta"):
        built: Any = part.build(*place)
    return sum(parameter.numel() for parameter in built.parameters()) if isinstance(built, nn.Module) else 0


def state_bytes(slots: Mapping[str, SlotSpec], tokens: int, dtype: torch.dtype, device: str) -> int:
    """Bytes that the state of one row takes after this many tokens, the last of which came alone.

    Args:
        slots: what is stored.
        tokens: so far.
        dtype: of the activations. Slots of a fixed size hold sums over many tokens, in float32 or better.
        device: type of the device, e.g. ``cpu``.
    """
    total = 0
    for slot in slots.values():
        kept = 1 if not slot.grows else tokens if slot.window is None else min(tokens, slot.window)
        stored = slot.stored(dtype if slot.grows else torch.promote_types(dtype, torch.float32), device)
        total += sum(kept * torch.Size(shape).numel() * stored.itemsize for shape in slot.fields.values())
    return total
