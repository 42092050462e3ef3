"""Llama-shaped models: what their config says, and how their tensors are called, here and there.

Both directions read the same tables, so what is written can be read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import Spec

MODEL_TYPE: Final = "llama"

WHOLE: Final = (
    ("embedding.weight", "model.embed_tokens.weight"),
    ("final_norm.weight", "model.norm.weight"),
    ("head.weight", "lm_head.weight"),
)
"""Names of tensors that exist once, ours and theirs."""
PER_LAYER: Final = (
    ("sub_layers.attention.pre_norm.weight", "input_layernorm.weight"),
    ("attention.query.", "self_attn.q_proj."),
    ("attention.key.", "self_attn.k_proj."),
    ("attention.value.", "self_attn.v_proj."),
    ("attention.output.", "self_attn.o_proj."),
    ("sub_layers.feedforward.pre_norm.weight", "post_attention_layernorm.weight"),
    ("feedforward.gate.", "mlp.gate_proj."),
    ("feedforward.up.", "mlp.up_proj."),
    ("feedforward.down.", "mlp.down_proj."),
)
"""Names, or beginnings of names, after ``layers.N.`` here and ``model.layers.N.`` there."""
ACTIVATIONS: Final = (
    ("silu", "silu"),
    ("silu", "swish"),
    ("gelu", "gelu"),
    ("gelu-tanh", "gelu_pytorch_tanh"),
    ("gelu-tanh", "gelu_new"),
    ("relu", "relu"),
)
"""Names of activations, ours and theirs; the first of several is written."""
IGNORED_TENSORS: Final = "rotary_emb.inv_freq"
"""End of the name of tables that old files hold and that follow from the config."""
UNDERSTOOD: Final = frozenset(
    {
        "model_type",
        "architectures",
        "hidden_size",
        "num_hidden_layers",
        "max_position_embeddings",
        "vocab_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "hidden_act",
        "rms_norm_eps",
        "rope_theta",
        "rope_parameters",
        "rope_scaling",
        "attention_bias",
        "mlp_bias",
        "attention_dropout",
        "tie_word_embeddings",
    }
)
WITHOUT_EFFECT: Final = frozenset(
    {
        "_name_or_path",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "initializer_range",
        "pretraining_tp",
        "chunk_size_feed_forward",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "id2label",
        "label2id",
        "problem_type",
        "is_encoder_decoder",
        "is_decoder",
    }
)
"""Fields that don't change what an evaluated model computes."""


class UnsayableError(UserError):
    """The format has no words for this."""


def config_of(section: Mapping[str, Any], *, vocab_size: int, width: int) -> dict[str, Any]:
    """The config of a model with this resolved section.

    Args:
        section: of the recipe.
        vocab_size: rows of the embedding.
        width: hidden features of the feed-forwards.

    Raises:
        UnsayableError: Llama has no counterpart for a part, or for one of its options.
    """
    if section.get("blocks"):
        raise _unsayable("layers that differ (model.blocks)")
    if not section["layers"]:
        raise _unsayable("a model without layers")
    if not section["normed"]:
        raise _unsayable("a model without a final norm (normed: false)")
    # Dropout is a matter of training and has no counterpart but in attention; evaluated models are the same.
    _only(section["block"], "block", "residual", {"dropout"})
    _only(section["connection"], "connection", "single")
    _only(section["embedding"], "embedding", "token", {"dropout"})
    for mask in section["mask"]:
        _only(mask, "mask", ("causal", "documents"))
    norm = _only(section["norm"], "norm", "rmsnorm", {"eps"})
    final = _only(section.get("final_norm") or section["norm"], "norm", "rmsnorm", {"eps"})
    if final.eps != norm.eps:
        raise _unsayable(f"a final norm with another epsilon ({final.eps:g}, the others {norm.eps:g})")
    if len(section["position"]) != 1:
        raise _unsayable(f"{len(section['position'])} position schemes; it has exactly one, rope")
    rope = _only(section["position"][0], "position", "rope", {"theta"})
    head = _only(section["head"], "head", "language-model", {"tied"})
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": MODEL_TYPE,
        "hidden_size": section["dim"],
        "num_hidden_layers": section["layers"],
        "max_position_embeddings": section["context"],
        "vocab_size": vocab_size,
        "rms_norm_eps": norm.eps,
        # Readers from version 5 on take rope_parameters, older ones rope_theta.
        "rope_parameters": {"rope_type": "default", "rope_theta": rope.theta},
        "rope_theta": rope.theta,
        "tie_word_embeddings": head.tied,
        **_attention(section),
        **_feedforward(section, width),
    }


def _attention(section: Mapping[str, Any]) -> dict[str, Any]:
    free = {"heads", "kv_heads", "head_dim", "qkv_bias", "output_bias", "scale", "dropout", "output_dropout"}
    attention = _only(section["attention"], "attention", "gqa", free)
    head_dim = attention.head_dim or section["dim"] // attention.heads
    if attention.qkv_bias != attention.output_bias:
        raise _unsayable("attention whose maps have biases in part (qkv_bias differs from output_bias)")
    if attention.scale not in (None, head_dim**-0.5):
        raise _unsayable(f"attention gqa with scale: {attention.scale}")
    return {
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads or attention.heads,
        "head_dim": head_dim,
        "attention_bias": attention.qkv_bias,
        "attention_dropout": attention.dropout,
    }


def _feedforward(section: Mapping[str, Any], width: int) -> dict[str, Any]:
    feedforward = _only(section["feedforward"], "feedforward", ("glu", "swiglu"), {"width", "bias", "activation"})
    activation = "silu"
    if hasattr(feedforward, "activation"):
        activation = feedforward.activation.name
        _only(feedforward.activation, "activation", tuple(ours for ours, _ in ACTIVATIONS))
    theirs = next(there for here, there in ACTIVATIONS if here == activation)
    return {"intermediate_size": width, "hidden_act": theirs, "mlp_bias": feedforward.bias}


def _only(value: Any, kind: str, names: str | tuple[str, ...], free: Iterable[str] = ()) -> Any:
    """The config of a part that must have one of these names, and all but its ``free`` options at their defaults."""
    if value is None:
        raise _unsayable(f"a model without {kind}")
    spec: Spec[Any] = Spec.read(kind, value)
    if spec.name not in ((names,) if isinstance(names, str) else names):
        raise _unsayable(f"{kind} {spec.name}")
    for name, field in type(spec.config).model_fields.items():
        chosen = getattr(spec.config, name)
        if name not in free and chosen != field.get_default(call_default_factory=True):
            raise _unsayable(f"{kind} {spec.name} with {name}: {chosen}")
    return spec.config


def _unsayable(what: str) -> UnsayableError:
    return UnsayableError(
        f"Llama, the shape that is written for Hugging Face, has no counterpart for {what}",
        remedy="It has residual pre blocks, rmsnorm, rope, gqa, glu and a language-model head.",
        code="not-llama-shaped",
    )


def section_of(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The resolved section of a model with this config, and what is to be told about it.

    Raises:
        UserError: another architecture, or an option that our parts don't have.
    """
    if config.get("model_type") != MODEL_TYPE:
        raise UserError(
            f"models of type {config.get('model_type')!r} can't be read",
            remedy="Llama-shaped models can (model_type: llama).",
            code="unknown-architecture",
        )
    activation = config.get("hidden_act", "silu")
    ours = next((here for here, there in ACTIVATIONS if there == activation), None)
    if ours is None:
        raise UserError(f"the activation {activation!r} (hidden_act) is not known", code="unknown-activation")
    heads, dim = int(config["num_attention_heads"]), int(config["hidden_size"])
    bias = bool(config.get("attention_bias", False))
    eps = float(config.get("rms_norm_eps", 1e-6))
    section = {
        "dim": dim,
        "layers": int(config["num_hidden_layers"]),
        "context": int(config.get("max_position_embeddings", 2048)),
        "vocab_size": int(config["vocab_size"]),
        "embedding": {"use": "token"},
        "block": {"use": "residual", "layout": "pre"},
        "connection": {"use": "single"},
        "norm": {"use": "rmsnorm", "eps": eps},
        "final_norm": {"use": "rmsnorm", "eps": eps},
        "normed": True,
        "position": [{"use": "rope", "theta": _theta(config)}],
        "mask": [{"use": "causal"}, {"use": "documents"}],
        "attention": {
            "use": "gqa",
            "heads": heads,
            "kv_heads": int(config.get("num_key_value_heads") or heads),
            "head_dim": int(config.get("head_dim") or dim // heads),
            "qkv_bias": bias,
            "output_bias": bias,
            "dropout": float(config.get("attention_dropout", 0.0)),
        },
        "feedforward": {
            "use": "glu",
            "activation": {"use": ours},
            "width": int(config["intermediate_size"]),
            "bias": bool(config.get("mlp_bias", False)),
        },
        "head": {"use": "language-model", "tied": bool(config.get("tie_word_embeddings", False))},
    }
    unknown = sorted(set(config) - UNDERSTOOD - WITHOUT_EFFECT)
    return section, [f"config.json: the field {name!r} was not understood" for name in unknown]


def _theta(config: Mapping[str, Any]) -> float:
    """Base of the rotary frequencies, wherever a version of the config keeps it."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UserError(
            f"rotary positions scaled by {kind!r} can't be read",
            remedy="The position part rope has no such scaling.",
            code="rope-scaling-unknown",
        )
    if float(rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))) != 1.0:
        raise UserError("Llama with partial_rotary_factor can't be read", code="rope-partial")
    return float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))


def expected(section: Mapping[str, Any]) -> set[str]:
    """Their names of all tensors that a model with this config has."""
    names = {theirs for ours, theirs in WHOLE if ours != "head.weight" or not section["head"]["tied"]}
    biased = {"self_attn": section["attention"]["qkv_bias"], "mlp": section["feedforward"]["bias"]}
    for layer in range(section["layers"]):
        for _, theirs in PER_LAYER:
            name = f"model.layers.{layer}.{theirs}"
            if not name.endswith("."):
                names.add(name)
                continue
            names.add(f"{name}weight")
            if biased[theirs.partition(".")[0]]:
                names.add(f"{name}bias")
    return names


def renamed(tensors: Mapping[str, Tensor], layers: int, *, back: bool) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the other side's names (``back``: from theirs to ours), and the names that it has no room for."""
    whole: dict[str, str] = {}
    beginnings: dict[str, str] = {}
    for ours, theirs in WHOLE:
        whole[theirs if back else ours] = ours if back else theirs
    for layer in range(layers):
        for ours, theirs in PER_LAYER:
            here, there = f"layers.{layer}.{ours}", f"model.layers.{layer}.{theirs}"
            known = beginnings if ours.endswith(".") else whole
            known[there if back else here] = here if back else there
    result: dict[str, Tensor] = {}
    strange: list[str] = []
    for name, tensor in tensors.items():
        beginning, leaf = name.rpartition(".")[0] + ".", name.rpartition(".")[2]
        if name in whole:
            result[whole[name]] = tensor
        elif beginning in beginnings and leaf in ("weight", "bias"):
            result[beginnings[beginning] + leaf] = tensor
        elif not name.endswith(IGNORED_TENSORS):
            strange.append(name)
    return result, strange
