"""When torch's packed CPU kernels are worth it."""

from __future__ import annotations

import torch

MOST_ROWS = 8
"""Above this many rows an ordinary product with dequantized weights is faster (measured on AVX-512 CPUs)."""


def few_rows_on_cpu(dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
    """Why the packed CPU operators shouldn't be used here; None: they may."""
    if device.type != "cpu":
        return f"it runs on CPUs only, not on {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"in {dtype} it is slower than dequantized weights; it takes bfloat16 and float16"
    if not 1 <= rows <= MOST_ROWS:
        return f"{rows} rows; it takes 1 to {MOST_ROWS}"
    return None
