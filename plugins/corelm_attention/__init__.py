"""First-party attention parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "attention",
        "gated-linear",
        "gated_linear:GatedLinearAttention",
        "Linear attention with a data-dependent decay per head (Yang et al., 2023, arXiv:2312.06635).",
    ),
    (
        "attention",
        "gqa",
        "gqa:GroupedQueryAttention",
        "Softmax attention with shared key and value heads (Ainslie et al., 2023, arXiv:2305.13245).",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_attention.{target}", summary=summary)
