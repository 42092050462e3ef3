"""Models as they are published: sections of recipes, small ones of each make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

_NORM: Final = {"use": "rmsnorm", "eps": 1e-5}
_FROM_ONE: Final = {"use": "rmsnorm", "eps": 1e-5, "offset": True}
_CENTRED: Final = {"use": "layernorm", "eps": 1e-5}
_WIDE: Final = {"use": "gqa", "heads": 4, "kv_heads": 2, "head_dim": 8}
_BIASED: Final = {"use": "gqa", "heads": 4, "qkv_bias": True, "output_bias": True}
TIED, UNTIED = ({"use": "language-model", "tied": tied} for tied in (True, False))
GLU: Final = {"use": "glu", "width": 12}
_YARN: Final = {"use": "yarn", "factor": 4.0, "original_context": 16, "mscale": 0.7, "mscale_all_dim": 1.3}
_LATENT: Final = {
    "use": "latent",
    "heads": 2,
    "q_lora_rank": 6,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
    "norm": {"use": "rmsnorm", "eps": 1e-6},
}
_STRETCHED: Final = 10**-0.5 * (0.1 * 1.3 * math.log(4.0) + 1) ** 2
"""DeepSeek's scale of scores of ten features, beyond the context by ``_YARN``."""
_DEEPSEEK: Final[dict[str, Any]] = {
    "layers": 3,
    "norm": _NORM,
    "position": {"use": "rope", "pairing": "interleaved"},
    "attention": _LATENT,
    "head": UNTIED,
    "blocks": {
        "dense": {"feedforward": {"use": "glu", "width": 12}},
        "sparse": {
            "feedforward": {
                "use": "moe",
                "experts": 4,
                "expert": {"use": "glu", "width": 8},
                "shared": {"use": "glu", "width": 8},
                "router": {
                    "use": "top-k",
                    "chosen": 2,
                    "score": "sigmoid",
                    "selection_bias": True,
                    "groups": 2,
                    "scale": 2.5,
                },
            }
        },
    },
    "pattern": {"first": 2, "use": "dense", "otherwise": "sparse"},
}

PUBLISHED: Final[Mapping[str, dict[str, Any]]] = {
    "GPT-2": {
        "layers": 2,
        "norm": _CENTRED,
        "position": "learned",
        "attention": _BIASED,
        "feedforward": {"use": "mlp", "activation": "gelu-tanh"},
        "head": TIED,
    },
    "OPT": {
        "norm": _CENTRED,
        "position": {"use": "learned", "offset": 2},
        "attention": _BIASED,
        "feedforward": {"use": "mlp", "activation": "relu", "width": 20},
        "head": TIED,
    },
    "Falcon": {
        "block": {"use": "residual", "layout": "parallel-norms"},
        "norm": _CENTRED,
        "attention": {"use": "gqa", "heads": 2, "kv_heads": 1},
        "feedforward": {"use": "mlp", "bias": False, "width": 20},
        "head": TIED,
    },
    "Llama 3": {
        "context": 16,
        "norm": _NORM,
        "position": {
            "use": "rope",
            "theta": 1e3,
            "scaling": {
                "use": "llama3",
                "factor": 8.0,
                "low_factor": 1.0,
                "high_factor": 4.0,
                "original_context": 16,
            },
        },
        "attention": _WIDE,
        "feedforward": GLU,
        "head": UNTIED,
    },
    "Gemma 3": {
        "layers": 3,
        "embedding": {"use": "token", "scale": "sqrt-dim"},
        "block": {"use": "residual", "layout": "sandwich"},
        "norm": _FROM_ONE,
        "attention": {**_WIDE, "qk_norm": _FROM_ONE, "scale": 0.25},
        "feedforward": {**GLU, "activation": "gelu-tanh"},
        "head": TIED,
        "blocks": {
            "sliding_attention": {
                "mask": ["causal", "documents", {"use": "window", "size": 5}],
                "position": {"use": "rope", "theta": 50.0},
            },
            "full_attention": {
                "position": {"use": "rope", "theta": 1e3, "scaling": {"use": "linear", "factor": 4.0}}
            },
        },
        "pattern": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "gpt-oss": {
        "layers": 2,
        "norm": _NORM,
        "position": {
            "use": "rope",
            "theta": 1e3,
            "scaling": {"use": "yarn", "factor": 4.0, "original_context": 16, "truncate": False},
        },
        "attention": {**_WIDE, "qkv_bias": True, "output_bias": True, "sinks": True},
        "feedforward": {
            "use": "moe",
            "experts": 4,
            "expert": {
                "use": "glu",
                "activation": {"use": "clamped-swiglu", "limit": 7.0, "slope": 1.702},
                "width": 8,
                "bias": True,
            },
            "router": {"use": "top-k", "chosen": 2, "order": "top-k-then-score", "bias": True},
        },
        "head": UNTIED,
        "blocks": {
            "sliding_attention": {"mask": ["causal", "documents", {"use": "window", "size": 5}]},
            "full_attention": {},
        },
        "pattern": ["sliding_attention", "full_attention"],
    },
    "DeepSeek-V3": _DEEPSEEK,
    "DeepSeek-V3 beyond its context": {
        **_DEEPSEEK,
        "position": {"use": "rope", "pairing": "interleaved", "scaling": _YARN},
        "attention": {**_LATENT, "scale": _STRETCHED},
    },
    "Qwen3-Next": {
        "layers": 4,
        "position": "none",
        "norm": _FROM_ONE,
        "head": UNTIED,
        "blocks": {
            "linear": {"attention": {"use": "gated-delta", "heads": 2, "key_dim": 4, "value_dim": 3, "eps": 1e-5}},
            "full": {
                "position": {"use": "rope", "fraction": 0.5},
                "attention": {**_WIDE, "output_gate": True, "qk_norm": _FROM_ONE},
            },
            "dense": {"feedforward": GLU},
            "sparse": {
                "feedforward": {
                    "use": "moe",
                    "experts": 4,
                    "expert": {"use": "glu", "width": 8},
                    "shared": {"use": "glu", "width": 8},
                    "shared_gate": True,
                    "router": {"use": "top-k", "chosen": 2},
                }
            },
        },
        "patterns": {
            "mixers": ["linear", "linear", "linear", "full"],
            "experts": {"at": [1, 3], "use": "sparse", "otherwise": "dense"},
        },
    },
    "Mamba-2": {
        "layers": 2,
        "context": 1_048_576,
        "norm": _NORM,
        "position": "none",
        "attention": {"use": "mamba2", "heads": 4, "head_dim": 8, "state_size": 6, "groups": 2, "chunk": 8},
        "feedforward": None,
        "head": UNTIED,
    },
}
"""Models of these makes, two or three layers of a few features; none of a format's business, all of the world's."""
