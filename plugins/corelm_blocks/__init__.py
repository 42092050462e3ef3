"""First-party blocks, connections, embeddings, heads and initialisations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "block",
        "residual",
        "residual:Residual",
        "Sub-layers around one residual stream: pre, post, sandwich, parallel",
    ),
    ("connection", "single", "single:Single", "One residual stream, to which results are added"),
    ("embedding", "token", "token:TokenEmbedding", "A learned vector per token"),
    ("head", "language-model", "language_model:LanguageModelHead", "Logits of the next token"),
    ("head", "classifier", "classifier:Classifier", "Logits of classes"),
    ("head", "scalar", "scalar:Scalar", "One number per token: a value, or a reward"),
    (
        "init",
        "normal",
        "normal:Normal",
        "Normal with one deviation, smaller for maps that write to the residual stream",
    ),
    ("init", "fan-in", "fan_in:FanIn", "Normal with deviation 1/√fan-in, so that widths don't change the scale"),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_blocks.{target}", summary=summary)
