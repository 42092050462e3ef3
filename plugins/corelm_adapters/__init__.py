"""First-party adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "adapter",
        "lora",
        "lora:LoRA",
        "Low-rank adaptation: ``y = W x + b + s · B A dropout(x)`` with W and b frozen.",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_adapters.{target}", summary=summary)
