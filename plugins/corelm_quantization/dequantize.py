"""The reference kernel: turn the codes back into weights, then multiply."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from corelm.kinds import Codes, Kernel


class Dequantize(Kernel):
    """Reference: codes back to weights once, then an ordinary product; works everywhere.

    The weights are kept in the dtype of the activations, so memory is that of a model that wasn't quantized;
    what is saved stays small.
    """

    priority = -100

    @classmethod
    def offers(cls, config: object) -> frozenset[str]:
        """Gradients flow through it."""
        return frozenset({"gradient"})

    def supports(self, codes: Codes, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
        """Everything."""
        return None

    def prepare(self, codes: Codes, dtype: torch.dtype) -> Tensor:
        """The weights, ``(outputs, inputs)``."""
        return codes.dequantize(dtype)

    def matmul(self, x: Float[Tensor, "rows inputs"], prepared: Tensor) -> Float[Tensor, "rows outputs"]:
        """``x Wᵀ``."""
        return F.linear(x, prepared)
