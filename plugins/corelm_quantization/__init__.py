"""First-party quantization parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "kernel",
        "dequantize",
        "dequantize:Dequantize",
        "Reference: codes back to weights once, then an ordinary product; works everywhere.",
    ),
    (
        "kernel",
        "int4-packed",
        "int4_packed:Int4Packed",
        "4-bit codes in groups of 32, 64, 128 or 256 inputs, torch's CPU operator, few rows.",
    ),
    (
        "kernel",
        "int8-packed",
        "int8_packed:Int8Packed",
        "Signed 8-bit codes with one step per output channel, torch's CPU operator, few rows.",
    ),
    (
        "quantizer",
        "gptq",
        "gptq:GPTQ",
        "GPTQ: second-order rounding with error feedback (Frantar et al., 2022, arXiv:2210.17323).",
    ),
    (
        "quantizer",
        "round-to-nearest",
        "round_to_nearest:RoundToNearest",
        "Round to nearest: each weight to the closest point of its group's uniform grid.",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_quantization.{target}", summary=summary)
