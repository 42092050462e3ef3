"""First-party feedforward parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "activation",
        "clamped-swiglu",
        "activations:ClampedSwiGLU",
        "x · sigmoid(slope · x) for x up to a limit; the value is clamped to ±limit and shifted by one (gpt-oss).",
    ),
    (
        "activation",
        "gelu",
        "activations:GELU",
        "x · Φ(x), with the error function (Hendrycks & Gimpel, 2016, arXiv:1606.08415).",
    ),
    (
        "activation",
        "gelu-tanh",
        "activations:GELUTanh",
        "GELU through a tanh, within 5e-4 of the exact one (Hendrycks & Gimpel, 2016, arXiv:1606.08415).",
    ),
    (
        "activation",
        "identity",
        "activations:Identity",
        "x itself; a gated unit with it is bilinear (Shazeer, 2020, arXiv:2002.05202).",
    ),
    (
        "activation",
        "quick-gelu",
        "activations:QuickGELU",
        "x · sigmoid(1.702 x), the rough GELU (Hendrycks & Gimpel, 2016, arXiv:1606.08415).",
    ),
    ("activation", "relu", "activations:ReLU", "max(x, 0)."),
    ("activation", "relu-squared", "activations:ReLUSquared", "max(x, 0)² (So et al., 2021, arXiv:2109.08668)."),
    (
        "activation",
        "sigmoid",
        "activations:Sigmoid",
        "1 / (1 + exp(−x)), which is ½ at zero (Dauphin et al., 2016, arXiv:1612.08083).",
    ),
    ("activation", "silu", "activations:SiLU", "x · sigmoid(x) (Elfwing et al., 2017, arXiv:1702.03118)."),
    (
        "feedforward",
        "glu",
        "glu:GatedLinearUnit",
        "Gates one projection by the activation of another (Shazeer, 2020, arXiv:2002.05202).",
    ),
    (
        "feedforward",
        "mlp",
        "mlp:MLP",
        "Two linear maps with an activation between them (Vaswani et al., 2017, arXiv:1706.03762).",
    ),
    (
        "feedforward",
        "moe",
        "moe:MixtureOfExperts",
        "Sends each token through a few of many feed-forwards (Shazeer et al., 2017, arXiv:1701.06538).",
    ),
    (
        "feedforward",
        "swiglu",
        "swiglu:SwiGLU",
        "The gated linear unit with SiLU: down(silu(gate(x)) · up(x)) (Shazeer, 2020, arXiv:2002.05202).",
    ),
    (
        "router",
        "top-k",
        "top_k:TopKRouter",
        "Sends each token to the k experts that a linear map prefers (Shazeer et al., 2017, arXiv:1701.06538).",
    ),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_feedforward.{target}", summary=summary)
