"""Products of a single row with a weight: what decoding one sequence on a CPU spends its time on.

Torch's product of one row streams a bfloat16 or float32 weight at less than half of the speed at which it streams
float16, or float32 that is stored the other way round. So decoding keeps copies of the weights in the better form.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

ROOM = 2.0**-6
"""Factor of activations on their way to float16, so that those up to 4 · 10⁶ fit."""

_here = threading.local()


Map = tuple[Tensor, Tensor | None]
"""Weight ``(outputs, inputs)`` and bias of a linear map."""


class RowCopies:
    """Copies of weights, made when each is first needed; they cost the memory of the weights once more.

    Maps that read the same row are copied into one matrix, and one product serves them all. A copy of a bfloat16 weight
    is exact but for values below 2⁻²⁴; what is beyond the range of float16 isn't copied.
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[int, ...], _Copy] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> RowCopies:
        """None at first: they are of other weights."""
        return RowCopies()

    def product(self, x: Tensor, maps: tuple[Map, ...]) -> tuple[Tensor, ...]:
        """``x Wᵀ + b`` of every map, for one row."""
        key = tuple([id(weight) for weight, _ in maps])
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = _Copy(maps)
        return copy.product(x)

    def refresh(self) -> None:
        """Drop the copies of weights that have changed since."""
        stale = [key for key, copy in self._copies.items() if not copy.holds()]
        for key in stale:
            del self._copies[key]


class _Copy:
    """One matrix made of the weights of some maps."""

    def __init__(self, maps: tuple[Map, ...]) -> None:
        self.maps, self.states = maps, [_state(tensor) for one in maps for tensor in one]
        self.sizes = [len(weight) for weight, _ in maps]
        weights = [weight.detach() for weight, _ in maps]
        kind, copied = weights[0].dtype, _copyable(weights)
        whole = torch.cat(weights) if copied and len(maps) > 1 else weights[0]
        self.matrix: Tensor | None = None
        if copied:
            self.matrix = whole.half() if kind == torch.bfloat16 else whole.T.contiguous()
        self.bias: Tensor | None = None
        if any(bias is not None for _, bias in maps):
            none = [torch.zeros(len(weight), dtype=kind) for weight in weights]
            self.bias = torch.cat(
                [zero if b is None else b.detach() for (_, b), zero in zip(maps, none, strict=True)]
            )
        self.factor = torch.full((1,), 1 / ROOM)

    def holds(self) -> bool:
        """Whether the maps are what they were."""
        return [_state(tensor) for one in self.maps for tensor in one] == self.states

    def product(self, x: Tensor) -> tuple[Tensor, ...]:
        """Of every map; a call costs as much as a product of a small matrix, so there are few of them."""
        matrix, bias = self.matrix, self.bias
        if matrix is None:
            return tuple(F.linear(x, *one) for one in self.maps)
        if matrix.dtype == torch.float16:
            half = F.linear(torch.mul(x, ROOM, out=torch.empty_like(x, dtype=torch.float16)), matrix)
            y = torch.empty_like(half, dtype=x.dtype)
            # Operands of two types are taken to float32, and the result is rounded once.
            if bias is None:
                torch.mul(half, self.factor, out=y)
            else:
                torch.add(bias, half, alpha=1 / ROOM, out=y)
        else:
            y = x @ matrix if bias is None else x @ matrix + bias
        return y.split(self.sizes, -1) if len(self.sizes) > 1 else (y,)


def _state(tensor: Tensor | None) -> tuple[Any, ...]:
    """Moving a module to another type or device keeps its parameters and their versions, and changes their memory."""
    if tensor is None:
        return ()
    version = 0 if tensor.is_inference() else tensor._version  # tensors of inference mode are not counted
    return version, tensor.data_ptr(), tensor.dtype


def _copyable(weights: list[Tensor]) -> bool:
    if any(weight.dtype != weights[0].dtype for weight in weights):
        return False
    if weights[0].dtype == torch.bfloat16:
        return max(float(weight.abs().amax()) for weight in weights) < torch.finfo(torch.float16).max
    return weights[0].dtype == torch.float32


@contextlib.contextmanager
def quick_rows(copies: RowCopies) -> Iterator[None]:
    """Let ``linear`` use these copies, in this thread; without gradients only, and while no weight changes."""
    copies.refresh()
    before = getattr(_here, "copies", None)
    _here.copies = copies
    try:
        yield
    finally:
        _here.copies = before


def linear(
    x: Float[Tensor, "... inputs"], weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None
) -> Float[Tensor, "... outputs"]:
    """``x Wᵀ + b``; the same as torch's, which is quicker for single rows inside ``quick_rows``."""
    copies = copies_for(x, weight)
    return F.linear(x, weight, bias) if copies is None else copies.product(x, ((weight, bias),))[0]


def copies_for(x: Tensor, weight: Tensor) -> RowCopies | None:
    """The copies to use for this product; None where there are none, or ``x`` is more than one row."""
    if torch.compiler.is_compiling():
        return None
    copies: RowCopies | None = getattr(_here, "copies", None)
    fits = copies is not None and x.numel() == x.shape[-1] and x.dtype == weight.dtype and x.device.type == "cpu"
    return copies if fits else None
