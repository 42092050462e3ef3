"""Which arithmetic a training uses: bfloat16 where the processor has it, float32 through its fastest sound path."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import cache
from typing import Literal

import torch

from corelm.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False


def resolve(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Settle ``auto``; ``bf16`` is taken at its word, hardware or not.

    Raises:
        UserError: the device can't do bfloat16 at all.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(
            "precision bf16: this GPU has no bfloat16",
            remedy="Write `precision: fp32`.",
            code="precision-unsupported",
        )
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return precision


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


def require_compiler(device: torch.device) -> None:
    """Make sure that ``compile: true`` has what it needs on this device.

    Raises:
        UserError: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise UserError(
            f"compile: true needs a C++ compiler, and {compiler!r} is not installed",
            remedy="Install g++, or write `compile: false`.",
            code="compiler-missing",
        )
