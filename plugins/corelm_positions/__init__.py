"""First-party positions parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("mask", "causal", "causal:CausalMask", "Every token sees itself and what came before it."),
    (
        "mask",
        "chunk",
        "chunk:ChunkMask",
        "Every token sees what came before it in its chunk of ``size`` tokens (Liu et al., 2018, arXiv:1801.10198).",
    ),
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
        "query-temperature",
        "query_temperature:QueryTemperature",
        "Sharpens attention slowly with the position, as Llama 4 does (idea: Nakanishi, 2025, arXiv:2501.19399).",
    ),
    (
        "position",
        "rope",
        "rope:RotaryPosition",
        "Rotates pairs of features by angles that grow with position (Su et al., 2021, arXiv:2104.09864).",
    ),
    (
        "scaling",
        "dynamic",
        "dynamic:DynamicScaling",
        "Raises the base as documents outgrow the trained context (Peng et al., 2023, arXiv:2309.00071).",
    ),
    (
        "scaling",
        "linear",
        "linear:LinearScaling",
        "Divides all frequencies by a factor, as if positions lay closer (Chen et al., 2023, arXiv:2306.15595).",
    ),
    (
        "scaling",
        "llama3",
        "llama3:Llama3Scaling",
        "Divides low frequencies by a factor and keeps high ones (Llama team, 2024, arXiv:2407.21783).",
    ),
    (
        "scaling",
        "longrope",
        "longrope:LongRopeScaling",
        "Divides each frequency by a number of its own, found by search (Ding et al., 2024, arXiv:2402.13753).",
    ),
    (
        "scaling",
        "yarn",
        "yarn:YarnScaling",
        "Divides slow frequencies by a factor and keeps fast ones (Peng et al., 2023, arXiv:2309.00071).",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_positions.{target}", summary=summary)
