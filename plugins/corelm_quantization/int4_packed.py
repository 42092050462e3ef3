"""torch's 4-bit CPU kernel for few rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from corelm.kinds import Codes, Kernel, consecutive
from corelm_quantization.few_rows import few_rows_on_cpu

GROUPS = (32, 64, 128, 256)


@dataclass(frozen=True)
class Int4Weights:
    """Codes in the processor's own order, steps and origins ``(groups, outputs, 2)``, inputs per group."""

    packed: Tensor
    steps: Tensor
    group: int


class Int4Packed(Kernel):
    """4-bit codes in groups of 32, 64, 128 or 256 inputs, torch's CPU operator, few rows.

    The packed order depends on the processor's instructions, so it is made when it is first needed and never
    saved. The operator computes ``(code − 8)·step + origin``; the origin here is ``(8 − zero)·step``.
    """

    priority = 20

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        """None where the operator is defined *and* faster than multiplying with dequantized weights."""
        reason = few_rows_on_cpu(dtype, device, rows)
        if reason:
            return reason
        outputs, inputs = codes.codes.shape
        if codes.bits != 4:
            return f"codes of {codes.bits} bits; it takes 4"
        if outputs % 16:
            return f"{outputs} outputs; it takes multiples of 16"
        count = codes.scale.shape[1]
        group = inputs // count
        if group not in GROUPS or group * count != inputs:
            return f"{inputs} inputs in {count} groups; it takes groups of {', '.join(map(str, GROUPS))}"
        if not torch.equal(codes.groups, consecutive(inputs, group, codes.groups.device)):
            return "inputs of a group are not consecutive"
        return None

    def prepare(self, codes: Codes, dtype: torch.dtype) -> Int4Weights:
        """Pack the codes for this processor."""
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.codes.to(torch.int32), 2)
        scale = codes.scale.to(torch.promote_types(codes.scale.dtype, torch.float32))
        origin = (8 - codes.zero.to(scale.dtype)) * scale
        steps = torch.stack([scale, origin], dim=-1).transpose(0, 1).to(dtype).contiguous()
        return Int4Weights(packed, steps, codes.codes.shape[1] // codes.scale.shape[1])

    def matmul(self, x: Float[Tensor, "rows inputs"], prepared: Int4Weights) -> Float[Tensor, "rows outputs"]:
        """``x Wᵀ``."""
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.contiguous(), prepared.packed, prepared.group, prepared.steps
        )
        return product
