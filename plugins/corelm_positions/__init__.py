"""First-party positions parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("mask", "causal", "causal:CausalMask", "Every token sees itself and what came before it."),
    ("mask", "documents", "documents:DocumentsMask", "Tokens see their own document only."),
    (
        "mask",
        "window",
        "window:WindowMask",
        "Every token sees the last ``size`` tokens, itself included (Beltagy et al., 2020, arXiv:2004.05150).",
    ),
    (
        "position",
        "alibi",
        "alibi:ALiBi",
        "Lowers scores in proportion to distance, each head at its own rate (Press et al., 2021, arXiv:2108.12409).",
    ),
    (
        "position",
        "learned",
        "learned:LearnedPosition",
        "Adds a learned vector per position to the token embeddings (Gehring et al., 2017, arXiv:1705.03122).",
    ),
    (
        "position",
        "none",
        "none:NoPosition",
        "Adds nothing: a causal mask alone tells tokens apart (Kazemnejad et al., 2023, arXiv:2305.19466).",
    ),
    (
        "position",
        "rope",
        "rope:RotaryPosition",
        "Rotates pairs of features by angles that grow with position (Su et al., 2021, arXiv:2104.09864).",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_positions.{target}", summary=summary)
