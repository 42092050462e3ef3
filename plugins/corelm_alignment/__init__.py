"""First-party alignment parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "aligner",
        "dpo",
        "dpo:DirectPreference",
        "Direct preference optimisation (Rafailov et al., 2023, arXiv:2305.18290), with IPO and hinge losses.",
    ),
    (
        "aligner",
        "ppo",
        "ppo:ProximalPolicy",
        "Proximal policy optimisation (Schulman et al., 2017, arXiv:1707.06347) against a reward model.",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_alignment.{target}", summary=summary)
