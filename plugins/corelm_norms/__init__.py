"""First-party norms parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "norm",
        "layernorm",
        "layernorm:LayerNorm",
        "Subtracts the mean and divides by the standard deviation (Ba et al., 2016, arXiv:1607.06450).",
    ),
    (
        "norm",
        "rmsnorm",
        "rmsnorm:RMSNorm",
        "Divides by the root mean square (Zhang & Sennrich, 2019, arXiv:1910.07467).",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_norms.{target}", summary=summary)
