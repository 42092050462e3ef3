"""Tiny models of the reference library: for each family its configs, and how its reference is to be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from corelm_interchange.family import Family, families
from hypothesis import strategies as st

LENGTH = 24
"""Tokens of a test; windows, chunks and original contexts of the configs are shorter."""


def _eager(config: Mapping[str, Any]) -> str:
    return "eager"


def _always(config: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Reference:
    """How one family is tested.

    Attributes:
        variants: name → what differs from the family's first examples.
        pads: whether left padding changes nothing in the reference of a config.
        attention: which of the reference's implementations is right for a config.
        extra: fields that the reference needs and the family ignores.
    """

    variants: Mapping[str, Mapping[str, Any]]
    pads: Callable[[Mapping[str, Any]], bool] = _always
    attention: Callable[[Mapping[str, Any]], str] = _eager
    extra: Mapping[str, Any] = field(default_factory=dict)


YARN = {"rope_type": "yarn", "rope_theta": 1e3, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e3,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e3,
    "factor": 4.0,
    "short_factor": [1.0, 1.1, 1.3, 1.6],
    "long_factor": [1.0, 2.0, 3.0, 5.0],
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e3, "factor": 4.0}
NEAR = {"rope_type": "default", "rope_theta": 50.0}

REFERENCES: dict[str, Reference] = {
    "llama": Reference(
        {
            "2": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            "3": {"rope_parameters": LLAMA3, "rms_norm_eps": 1e-5},
            "biased": {"attention_bias": True, "mlp_bias": True, "head_dim": 12, "hidden_act": "gelu_pytorch_tanh"},
            "tied": {"tie_word_embeddings": True, "num_key_value_heads": 1},
            "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e3, "factor": 4.0}},
            "dynamic": {
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e3, "factor": 2.0},
                "max_position_embeddings": 16,
            },
            "yarn": {"rope_parameters": YARN},
            "longrope": {"rope_parameters": LONGROPE},
        }
    ),
    "gpt2": Reference(
        {
            "small": {"n_inner": None},
            "unscaled": {"scale_attn_weights": False, "activation_function": "gelu", "n_inner": 40},
            "by-layer": {"scale_attn_by_inverse_layer_idx": True},
            "untied": {"tie_word_embeddings": False},
        },
        pads=lambda config: False,
    ),
    "opt": Reference(
        {
            "125m": {},
            "350m": {"do_layer_norm_before": False, "word_embed_proj_dim": 24},
            "galactica": {"enable_bias": False, "activation_function": "gelu"},
            "bare": {"layer_norm_elementwise_affine": False, "_remove_final_layer_norm": True},
        }
    ),
    "falcon": Reference(
        {
            "7b": {"new_decoder_architecture": False, "multi_query": True},
            "40b": {"new_decoder_architecture": True},
            "11b": {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
            "rw": {
                "alibi": True,
                "multi_query": False,
                "parallel_attn": False,
                "bias": True,
                "num_kv_heads": 4,
            },
            "rw-parallel": {"alibi": True, "multi_query": True, "tie_word_embeddings": False},
        },
        # The eager path adds alibi twice, once with the mask and once in the attention.
        attention=lambda config: "sdpa" if config.get("alibi") else "eager",
    ),
    "gemma3_text": Reference(
        {
            "1b": {},
            "4b": {
                "rope_parameters": {"full_attention": LINEAR, "sliding_attention": NEAR},
                "num_key_value_heads": 1,
            },
            "capped": {"final_logit_softcapping": 5.0, "tie_word_embeddings": False, "attention_bias": True},
            "listed": {"layer_types": ["full_attention", "full_attention", "sliding_attention"], "sliding_window": 3},
        },
        # The reference ignores it, and so must we.
        extra={"attn_logit_softcapping": 1.0},
    ),
    "gpt_oss": Reference(
        {
            "20b": {"rope_parameters": {**YARN, "truncate": False}},
            "default": {"swiglu_limit": 7.0, "num_experts_per_tok": 1},
            "plain": {"attention_bias": False, "rope_parameters": NEAR, "swiglu_alpha": 0.5, "head_dim": 8},
            "tied": {"tie_word_embeddings": True, "layer_types": ["full_attention", "sliding_attention"]},
        }
    ),
    "deepseek_v3": Reference(
        {
            "671b": {"rope_parameters": {**YARN, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}},
            "moonlight": {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "n_shared_experts": 2},
            "biased": {"attention_bias": True, "norm_topk_prob": False, "first_k_dense_replace": 0},
            "halves": {"rope_interleave": False, "rope_parameters": YARN, "tie_word_embeddings": True},
        },
        extra={"num_key_value_heads": 4},  # must be that of heads, and is no field of its own
    ),
    "llama4_text": Reference(
        {
            "scout": {"interleave_moe_layer_step": 1, "rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}},
            "maverick": {"use_qk_norm": False, "num_experts_per_tok": 2},
            "untuned": {"attn_temperature_tuning": False, "attention_bias": True, "moe_layers": [0]},
            "mixed": {
                "num_hidden_layers": 3,
                "no_rope_layers": [0, 1, 1],
                "layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
                # Its factor is lost in the norm behind the rotation.
                "rope_parameters": YARN,
                "tie_word_embeddings": True,
            },
        },
        # Queries are scaled by their place in the row, padding included.
        pads=lambda config: not config.get("attn_temperature_tuning", True),
    ),
    "qwen3_next": Reference(
        {
            "80b": {},
            "biased": {
                "attention_bias": True,
                "linear_conv_kernel_dim": 2,
                "rope_parameters": {**NEAR, "partial_rotary_factor": 1.0},
            },
            "dense": {"decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": False},
            "listed": {
                "layer_types": ["full_attention", "linear_attention", "linear_attention", "full_attention"],
                "mlp_only_layers": [0],
                "linear_num_key_heads": 1,
                "tie_word_embeddings": True,
            },
        }
    ),
    "mamba2": Reference(
        {
            "130m": {"tie_word_embeddings": True, "n_groups": 1, "chunk_size": 256},
            "codestral": {"num_heads": 6, "expand": 3},
            "clamped": {"time_step_limit": [0.2, 0.6], "conv_kernel": 2},
            "biased": {"use_bias": True, "use_conv_bias": False},
        },
        # Behind padding, a convolution sees the bias of the map before it.
        pads=lambda config: not config.get("use_bias", False),
    ),
}

CASES = [f"{name}/{variant}" for name, reference in REFERENCES.items() for variant in reference.variants]


def family_of(case: str) -> Family:
    return families()[case.partition("/")[0]]


def first_examples(family: Family) -> dict[str, Any]:
    """The family's tiny config."""
    return {name: one.examples[0] for name, one in family.file.config.items() if one.examples}


def drawn_configs(family: Family) -> st.SearchStrategy[dict[str, Any]]:
    """Configs of the family's own options, each field as its file says or left out."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, one in family.file.config.items():
        if one.examples:
            sized = one.required or isinstance(one.default, int) and not isinstance(one.default, bool)
            (fields if sized else optional)[name] = st.sampled_from(one.examples)
    if family.file.rope is not None and family.file.rope.examples:
        optional["rope_parameters"] = st.sampled_from(family.file.rope.examples).map(dict)
    return st.fixed_dictionaries(fields, optional=optional)


def reference_model(name: str, config: Mapping[str, Any], seed: int = 0) -> torch.nn.Module:
    """The reference's model in evaluation mode, every number of it re-drawn."""
    family, reference = families()[name], REFERENCES[name]
    model_class = getattr(transformers, family.file.architecture)
    specials = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    made = model_class.config_class(**{**specials, **reference.extra, **config})
    made._attn_implementation = reference.attention(config)
    model = model_class(made).float().eval()
    redraw(model, seed)
    return model


@torch.no_grad()
def redraw(model: torch.nn.Module, seed: int) -> None:
    """A gain of one or a bias of zero would hide that it was forgotten."""
    generator = torch.Generator().manual_seed(seed)
    drawn: set[int] = set()
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point() and id(tensor) not in drawn:
            drawn.add(id(tensor))
            size = 0.4 if tensor.dim() > 1 else 0.8
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * size)


@cache
def case_config(case: str) -> dict[str, Any]:
    name, _, variant = case.partition("/")
    return {**first_examples(families()[name]), **REFERENCES[name].variants[variant]}


@cache
def case_model(case: str) -> torch.nn.Module:
    return reference_model(case.partition("/")[0], case_config(case))
