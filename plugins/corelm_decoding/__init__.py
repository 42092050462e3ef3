"""First-party decoding parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("sampler", "greedy", "greedy:Greedy", "Keeps the most likely token only; of equals, the first."),
    (
        "sampler",
        "min-p",
        "min_p:MinP",
        "Keeps tokens at least p times as likely as the likeliest (Nguyen et al., 2024, arXiv:2407.01082).",
    ),
    (
        "sampler",
        "repetition-penalty",
        "repetition_penalty:RepetitionPenalty",
        "Makes tokens of the sequence so far less likely, once each (Keskar et al., 2019, arXiv:1909.05858).",
    ),
    (
        "sampler",
        "temperature",
        "temperature:Temperature",
        "Divides logits by a temperature: below 1 likely tokens gain, above 1 they lose (Ackley et al., 1985).",
    ),
    (
        "sampler",
        "top-k",
        "top_k:TopK",
        "Keeps the k most likely tokens, and what is exactly as likely as the last of them.",
    ),
    (
        "sampler",
        "top-p",
        "top_p:TopP",
        "Keeps the smallest set of likeliest tokens whose mass reaches p (Holtzman et al., 2019, arXiv:1904.09751).",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_decoding.{target}", summary=summary)
