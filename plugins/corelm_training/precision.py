"""Which arithmetic a training uses: bfloat16 where the processor has it, else float32."""

from __future__ import annotations

import os
import shutil
from typing import Literal

import torch

from corelm.errors import UserError
from corelm.kinds import has_bf16

Precision = Literal["auto", "fp32", "bf16"]


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
