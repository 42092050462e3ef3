"""torch's 8-bit CPU kernel for few rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from corelm.kinds import Codes, Kernel
from corelm_quantization.few_rows import few_rows_on_cpu


@dataclass(frozen=True)
class Int8Weights:
    """Signed codes ``(outputs, inputs)`` and one scale per output."""

    codes: Tensor
    scale: Tensor


class Int8Packed(Kernel):
    """Signed 8-bit codes with one step per output channel, torch's CPU operator, few rows.

    Reads a quarter of the memory of float32 weights, which is what counts when one token at a time is generated.
    Any code of at most 8 bits will do whose distance to its zero point fits eight signed bits.
    """

    priority = 10

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        """None where the operator is defined *and* faster than multiplying with dequantized weights."""
        reason = few_rows_on_cpu(dtype, device, rows)
        if reason:
            return reason
        inputs = codes.codes.shape[1]
        if codes.scale.shape[1] != 1:
            return f"{codes.scale.shape[1]} groups per output channel; it takes one"
        if dtype == torch.bfloat16 and inputs % 16:  # the operator would crash the process
            return f"{inputs} inputs in bfloat16; it takes multiples of 16"
        zero = codes.zero
        if int(zero.max()) > 128 or 2**codes.bits - 1 - int(zero.min()) > 127:
            return "zero points so far from the middle that codes don't fit 8 signed bits"
        return None

    def prepare(self, codes: Codes, dtype: torch.dtype) -> Int8Weights:
        """Codes relative to their zero point as int8; scales in the activations' dtype."""
        signed = codes.codes.to(torch.int16) - codes.zero.to(torch.int16)
        return Int8Weights(signed.to(torch.int8).contiguous(), codes.scale[:, 0].to(dtype).contiguous())

    def matmul(self, x: Float[Tensor, "rows inputs"], prepared: Int8Weights) -> Float[Tensor, "rows outputs"]:
        """``x Wᵀ``."""
        product: Tensor = torch.ops.aten._weight_int8pack_mm(x.contiguous(), prepared.codes, prepared.scale)
        return product
