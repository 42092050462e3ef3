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


class RowCopies:
    """Copies of weights, made when each is first needed; they cost the memory of the weights once more.

    A copy of a bfloat16 weight is exact but for values below 2⁻²⁴; what is beyond the range of float16 isn't copied.
    """

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Tensor, tuple[Any, ...], Tensor | None]] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> RowCopies:
        """None at first: they are of other weights."""
        return RowCopies()

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``x Wᵀ + b`` for one row."""
        found = self._copies.get(id(weight))
        # Moving a module to another type or device keeps its parameters and their versions, and changes their memory.
        state = weight._version, weight.data_ptr(), weight.dtype
        if found is None or found[0] is not weight or found[1] != state:
            found = self._copies[id(weight)] = (weight, state, _copied(weight))
        copy = found[2]
        if copy is None:
            return F.linear(x, weight, bias)
        half = copy.dtype == torch.float16
        y = F.linear((x * ROOM).half(), copy).to(x.dtype) * (1 / ROOM) if half else x @ copy
        return y if bias is None else y + bias


def _copied(weight: Tensor) -> Tensor | None:
    if weight.dtype == torch.float32:
        return weight.detach().T.contiguous()
    if weight.dtype == torch.bfloat16 and float(weight.detach().abs().amax()) < torch.finfo(torch.float16).max:
        return weight.detach().half()
    return None


@contextlib.contextmanager
def quick_rows(copies: RowCopies) -> Iterator[None]:
    """Let ``linear`` use these copies, in this thread; without gradients only."""
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
    if not torch.compiler.is_compiling():
        copies: RowCopies | None = getattr(_here, "copies", None)
        if copies is not None and x.numel() == x.shape[-1] and x.dtype == weight.dtype and x.device.type == "cpu":
            return copies.product(x, weight, bias)
    return F.linear(x, weight, bias)
