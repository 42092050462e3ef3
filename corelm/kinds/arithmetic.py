"""Which arithmetic a processor does well: bfloat16 in hardware, float32 products by the faster library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False


@contextlib.contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Let float32 matrix products on CPUs take the faster library where that costs no accuracy; undone at the end.

    On processors without AMX, torch's setting "medium" only swaps MKL for oneDNN, which is up to twice as fast and
    as exact; elsewhere it may round to bfloat16. So the error is measured, not assumed.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu" and before == "highest" and _medium_is_exact():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _medium_is_exact() -> bool:
    """Whether "medium" products are as near to float64 as "highest" ones (bfloat16 would be 10⁴ times further)."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(192, 512, generator=generator)
    right = torch.randn(512, 256, generator=generator)
    exact = left.double() @ right.double()
    before = torch.get_float32_matmul_precision()
    errors = {}
    try:
        for setting in ("highest", "medium"):
            torch.set_float32_matmul_precision(setting)
            errors[setting] = float((left @ right - exact).abs().max())
    finally:
        torch.set_float32_matmul_precision(before)
    return errors["medium"] <= 4 * errors["highest"]
