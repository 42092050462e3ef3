"""First-party attention parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "attention",
        "gated-delta",
        "gated_delta:GatedDelta",
        "Linear attention whose state is corrected, not only added to (Yang et al., 2024, arXiv:2412.06464).",
    ),
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
    (
        "attention",
        "latent",
        "latent:LatentAttention",
        "Multi-head latent attention: one short vector per token is all that is stored (DeepSeek-AI, 2024, arXiv:2405.04434).",
    ),
    (
        "attention",
        "mamba2",
        "mamba2:Mamba2",
        "State space model with one decay per head (Dao & Gu, 2024, arXiv:2405.21060).",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_attention.{target}", summary=summary)
