"""Kind ``quantizer``: weights to few bits; and its option ``kernel``."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corelm.kinds.component import Component


@dataclass(frozen=True)
class Codes:
    """A quantized matrix in canonical form: what is saved, whatever kernel will read it.

    ``weight[o, i] ≈ (codes[o, i] − zero[o, g]) · scale[o, g]`` with ``g = groups[i]``.

    Attributes:
        codes: whole numbers in ``0 … 2^bits − 1``, uint8, ``(outputs, inputs)``.
        scale: float, ``(outputs, groups)``, in the dtype that it is saved in.
        zero: whole numbers in the range of the codes, uint8, ``(outputs, groups)``; for symmetric grids
            ``2^(bits − 1)`` everywhere.
        groups: group of each input, int32, ``(inputs,)``.
        bits: 2 … 8.
        note: what the quantizer has to tell about its choice, e.g. why it fell back to another method; not saved.
    """

    codes: Int[Tensor, "outputs inputs"]
    scale: Float[Tensor, "outputs groups"]
    zero: Int[Tensor, "outputs groups"]
    groups: Int[Tensor, " inputs"]
    bits: int
    note: str = ""

    def dequantize(self, dtype: torch.dtype | None = None) -> Float[Tensor, "outputs inputs"]:
        """The weights that the codes stand for, computed in the scale's dtype or float32, whichever is wider.

        Args:
            dtype: of the result; None: that of the computation.
        """
        index, work = self.groups.long(), torch.promote_types(self.scale.dtype, torch.float32)
        weight = (self.codes.to(work) - self.zero.to(work)[:, index]) * self.scale.to(work)[:, index]
        return weight.to(dtype or work)


def consecutive(inputs: int, group: int, device: torch.device) -> Int[Tensor, " inputs"]:
    """Groups of ``group`` inputs in a row, the last perhaps shorter; one group of all when ``group`` is 0."""
    return torch.arange(inputs, dtype=torch.int32, device=device) // (group or max(inputs, 1))


@dataclass
class Statistics:
    """What calibration saw at the input of one linear map.

    Attributes:
        hessian: ``2/n Σ x xᵀ`` over n tokens, float32 or float64, ``(inputs, inputs)``.
        tokens: n.
    """

    hessian: Float[Tensor, "inputs inputs"]
    tokens: int


class Quantizer(Component):
    """Chooses codes for one weight matrix.

    Built as ``Part(config)``.

    Contract:
        * Without statistics (or with an identity Hessian): every weight is within half a step of its value,
          the step taken from the data range of its group.
        * Codes are whole numbers in range; a group of zeros gives zeros; scaling a group by 2^k scales
          the result by 2^k.
        * Groups are independent where the method says so.
        * With statistics the error ``Σ (Δw)ᵀ H Δw`` is not above that of rounding to nearest.
        * NaN or infinity in the weights raises ``UserError``.
        * ``reference(weight, statistics)``, where there is one: the codes.
    """

    kind: ClassVar[str] = "quantizer"
    calibrated: ClassVar[bool] = False
    """Whether ``quantize`` needs statistics."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def quantize(self, weight: Float[Tensor, "outputs inputs"], statistics: Statistics | None = None) -> Codes:
        """Choose the codes."""

    @abstractmethod
    def refuses(self, outputs: int, inputs: int) -> str | None:
        """Why a matrix of this shape can't be quantized under the config; None: it can."""


class Kernel(Component):
    """Option of quantizers: multiplies activations with codes on some device.

    Built as ``Part(config)``. What ``prepare`` returns is specific to a processor and never saved.

    Contract:
        * ``matmul`` equals ``x @ codes.dequantize().T`` within ``32·eps·√inputs`` of the dtype of ``x``.
        * ``supports`` judges without touching ``codes.codes``, which may be on the meta device.
    Capability offered: ``gradient``, where ``matmul`` can be differentiated with respect to ``x``.
    """

    kind: ClassVar[str] = "kernel"
    priority: ClassVar[int] = 0
    """Of the kernels that support a product, the one with the highest priority is taken."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        """None where it can multiply ``(rows, inputs)`` activations; else the reason why not."""

    @abstractmethod
    def prepare(self, codes: Codes, dtype: torch.dtype) -> Any:
        """Lay the codes out for the processor, once."""

    @abstractmethod
    def matmul(self, x: Float[Tensor, "rows inputs"], prepared: Any) -> Float[Tensor, "rows outputs"]:
        """``x Wᵀ``."""
