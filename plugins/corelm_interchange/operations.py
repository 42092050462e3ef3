"""The algebra of tensor layouts: each operation and its inverse, exact to the bit.

An operation takes the tensors of a rule, in order, from our layout towards theirs (``forward``) or back
(``backward``). It only moves numbers, so both directions lose nothing, and works on ``meta`` tensors as well, which
is how shapes are known before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from corelm.errors import UserError


class Operation(Protocol):
    """One step between two layouts."""

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """From our layout towards theirs."""
        ...

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Back."""
        ...


@dataclass(frozen=True)
class Transpose:
    """Swaps the last two axes of every tensor; vectors stay as they are."""

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Swap."""
        return [tensor.transpose(-1, -2) if tensor.dim() > 1 else tensor for tensor in tensors]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Swap back."""
        return self.forward(tensors)


@dataclass(frozen=True)
class Join:
    """Puts several tensors into one, group by group.

    Along ``axis`` each tensor is cut into ``groups`` equal pieces; the result is piece 0 of the first, of the second
    …, then the pieces 1, and so on. With one group that is concatenation; with as many groups as heads the
    ``[q, k, v]`` of each head stand together; with as many groups as features two tensors alternate.

    Attributes:
        parts: sizes of the tensors' pieces, relative to each other.
        groups: number of pieces of each tensor.
        axis: along which; of a vector always its only one. Negative ones count from the end.
    """

    parts: tuple[int, ...]
    groups: int = 1
    axis: int = 0

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Several to one."""
        axis = self._axis(tensors[0])
        pieces = [tensor.unflatten(axis, (self.groups, -1)) for tensor in tensors]
        return [torch.cat(pieces, dim=axis + 1).flatten(axis, axis + 1)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One to several."""
        (tensor,) = tensors
        axis = self._axis(tensor)
        size, total = tensor.shape[axis], self.groups * sum(self.parts)
        if size % total:
            raise UserError(
                f"{size} rows do not divide into {self.groups} groups of {' + '.join(map(str, self.parts))}",
                remedy="Do the tensors and config.json belong together?",
                code="tensor-shape",
            )
        sizes = [part * (size // total) for part in self.parts]
        pieces = tensor.unflatten(axis, (self.groups, -1)).split(sizes, dim=axis + 1)
        return [piece.flatten(axis, axis + 1) for piece in pieces]

    def _axis(self, tensor: Tensor) -> int:
        return min(self.axis, tensor.dim() - 1) if self.axis >= 0 else max(tensor.dim() + self.axis, 0)


@dataclass(frozen=True)
class Stack:
    """Several tensors of one shape become one with an axis more."""

    count: int
    axis: int = 0

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Several to one."""
        return [torch.stack(list(tensors), dim=self.axis)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One to several."""
        (tensor,) = tensors
        if tensor.shape[self.axis] != self.count:
            raise UserError(
                f"{tensor.shape[self.axis]} stacked tensors instead of {self.count}",
                remedy="Do the tensors and config.json belong together?",
                code="tensor-shape",
            )
        return list(tensor.unbind(self.axis))


@dataclass(frozen=True)
class Reshape:
    """Axes that theirs has and ours hasn't: one of size 1 is added at ``axis``."""

    axis: int

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Add the axis."""
        return [tensor.unsqueeze(self.axis) for tensor in tensors]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Take it away."""
        return [tensor.squeeze(self.axis) for tensor in tensors]


@dataclass(frozen=True)
class Each:
    """The same steps on equal runs of the tensors, e.g. on those of each expert.

    Attributes:
        times: number of runs.
        steps: from our layout to theirs.
    """

    times: int
    steps: tuple[Operation, ...]

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the steps make of the first run, of the second …"""
        return [one for run in self._runs(tensors) for one in forward(self.steps, run)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Back, run by run."""
        return [one for run in self._runs(tensors) for one in backward(self.steps, run)]

    def _runs(self, tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        length = len(tensors) // self.times
        return [tensors[start : start + length] for start in range(0, len(tensors), length)]


@dataclass(frozen=True)
class Inverse:
    """An operation the other way round."""

    of: Operation

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The other's way back."""
        return self.of.backward(tensors)

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The other's way there."""
        return self.of.forward(tensors)


def _join(options: dict[str, Any]) -> Join:
    parts = [int(part) for part in options["parts"]]
    shared = math.gcd(*parts)
    return Join(tuple(part // shared for part in parts), int(options.get("groups", 1)), int(options.get("axis", 0)))


def _each(options: dict[str, Any]) -> Each:
    return Each(int(options["times"]), made(options["steps"]))


def _stack(options: dict[str, Any]) -> Stack:
    return Stack(int(options["count"]), int(options.get("axis", 0)))


OPERATIONS: Final[dict[str, Callable[[dict[str, Any]], Operation]]] = {
    "transpose": lambda options: Transpose(),
    "join": _join,
    "split": lambda options: Inverse(_join(options)),
    "stack": _stack,
    "unstack": lambda options: Inverse(_stack(options)),
    "unsqueeze": lambda options: Reshape(int(options["axis"])),
    "squeeze": lambda options: Inverse(Reshape(int(options["axis"]))),
    "each": _each,
}
"""Operations by the name that family files use; each from its options, holes filled."""
OPTIONS: Final[dict[str, frozenset[str]]] = {
    "transpose": frozenset(),
    "join": frozenset({"parts", "groups", "axis"}),
    "split": frozenset({"parts", "groups", "axis"}),
    "stack": frozenset({"count", "axis"}),
    "unstack": frozenset({"count", "axis"}),
    "unsqueeze": frozenset({"axis"}),
    "squeeze": frozenset({"axis"}),
    "each": frozenset({"times", "steps"}),
}


def made(steps: Sequence[dict[str, Any]]) -> tuple[Operation, ...]:
    """The operations that a family's file names, holes filled."""
    return tuple(OPERATIONS[name](options or {}) for step in steps for name, options in step.items())


def known(steps: Sequence[dict[str, Any]]) -> None:
    """Raise ``ValueError`` unless all steps are operations with their options."""
    for step in steps:
        (name, options) = next(iter(step.items()))
        if len(step) != 1 or name not in OPERATIONS or set(options or {}) - OPTIONS[name]:
            raise ValueError(f"{step} is no operation; there are {', '.join(OPERATIONS)}")
        known((options or {}).get("steps", []))


def forward(operations: Sequence[Operation], tensors: Sequence[Tensor]) -> list[Tensor]:
    """All operations, from our layout to theirs."""
    for operation in operations:
        tensors = operation.forward(tensors)
    return list(tensors)


def backward(operations: Sequence[Operation], tensors: Sequence[Tensor]) -> list[Tensor]:
    """All operations, from their layout to ours."""
    for operation in reversed(operations):
        tensors = operation.backward(tensors)
    return list(tensors)
