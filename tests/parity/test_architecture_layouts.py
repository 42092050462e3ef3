"""Tensors and configs in other spellings than those that files have today."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import save_file

transformers = pytest.importorskip("transformers")

from architectures import CASES, LENGTH, REFERENCES, case_model, first_examples, redraw
from corelm_interchange.family import families
from corelm_interchange.hugging_face import HuggingFace
from corelm_interchange.normal import differences, normal_form
from corelm_interchange.tensors import places

from corelm.errors import UserError
from corelm.model.loading import from_imported

PART = HuggingFace(HuggingFace.Config(compared=0))
FIRST = list({case.partition("/")[0]: case for case in reversed(CASES)}.values())


def section(name, **changed):
    family = families()[name]
    config = first_examples(family)
    for field, one in family.file.config.items():
        if set(one.aliases) & set(changed):
            config.pop(field, None)
    values, notes = family.read_config({**config, **changed})
    assert notes == []
    return normal_form(family.section(values))


def same_model(name, one, other):
    return list(differences(section(name, **one), section(name, **other))) == []


@pytest.mark.parametrize("case", FIRST)
def test_tensors_of_a_model_in_memory_are_read(case, tmp_path):
    model = case_model(case)
    memory, hub = tmp_path / "memory", tmp_path / "hub"
    model.save_pretrained(hub)
    memory.mkdir()
    (memory / "config.json").write_text((hub / "config.json").read_text())
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, memory / "model.safetensors")
    ours, theirs = PART.read(memory).tensors, PART.read(hub).tensors
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_next"])
def test_experts_are_apart_in_files_and_together_in_memory(name):
    family = families()[name]
    values, _ = family.read_config(first_examples(family))
    layouts = [found for found in places(family, values, section(name)["names"]) if len(found) > 1]
    assert layouts
    for apart, together in layouts:
        assert len(together.theirs) == 1 and ".experts." in apart.theirs[0]


def test_layers_that_predict_further_tokens_are_dropped(tmp_path):
    model = case_model("deepseek_v3/671b")
    model.save_pretrained(tmp_path)
    beyond = {f"model.layers.{model.config.num_hidden_layers}.eh_proj.weight": torch.zeros(2, 2)}
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()} | beyond, tmp_path / "model.safetensors"
    )
    assert not any("eh_proj" in name for name in PART.read(tmp_path).tensors)


@pytest.mark.parametrize("name", ["gpt_oss", "deepseek_v3"])
def test_quantized_tensors_are_refused_by_name(name, tmp_path):
    config = {
        "model_type": name,
        **first_examples(families()[name]),
        "quantization_config": {"quant_method": "mxfp4"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"its tensors are quantized \(mxfp4\)") as error:
        PART.read(tmp_path)
    assert error.value.code == "tensors-quantized" and error.value.remedy


EYES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
SEEING = {
    "gemma3_text": ("Gemma3", {**EYES, "intermediate_size": 16}, {"mm_tokens_per_image": 4}),
    "llama4_text": (
        "Llama4",
        {**EYES, "intermediate_size": 64, "vision_output_dim": 16}
        | {"projector_input_dim": 16, "projector_output_dim": 16},
        {},
    ),
}


@pytest.mark.parametrize("name", SEEING)
def test_the_language_model_of_a_model_that_sees_is_read(name, tmp_path):
    prefix, eyes, more = SEEING[name]
    nobody = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    text = {**nobody, **first_examples(families()[name])}
    config = getattr(transformers, f"{prefix}Config")(text_config=text, vision_config=eyes, image_token_id=96, **more)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config).eval()
    redraw(model, seed=1)
    model.save_pretrained(tmp_path)
    imported = PART.read(tmp_path)
    assert any("only the language model was read" in note for note in imported.notes)
    ids = torch.randint(0, 90, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(ids).logits
    found = from_imported(imported).logits(ids)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.max() - expected.min())


SPELLINGS = [
    (
        "gemma3_text",
        {"sliding_window_pattern": 2},
        {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    (
        "gemma3_text",
        {"rope_theta": 3e3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e3},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    ("gpt_oss", {"num_experts": 4}, {"num_local_experts": 4}),
    ("deepseek_v3", {"num_local_experts": 12}, {"n_routed_experts": 12}),
    ("llama4_text", {"no_rope_layers": [], "no_rope_layer_interval": 2}, {"no_rope_layers": [1, 0, 1, 0]}),
    (
        "llama4_text",
        {"no_rope_layers": [0, 1, 1, 0]},
        {
            "no_rope_layers": [0, 1, 1, 0],
            "layer_types": ["full_attention", "chunked_attention", "chunked_attention", "full_attention"],
        },
    ),
    ("llama4_text", {"interleave_moe_layer_step": 3}, {"moe_layers": [2]}),
    ("llama4_text", {"attn_temperature_tuning": 0}, {"attn_temperature_tuning": False}),
    (
        "qwen3_next",
        {"full_attention_interval": 2},
        {"layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"]},
    ),
    ("qwen3_next", {"decoder_sparse_step": 2}, {"mlp_only_layers": [0, 2]}),
    ("qwen3_next", {"decoder_sparse_step": 2, "mlp_only_layers": [1]}, {"mlp_only_layers": [0, 1, 2]}),
    ("qwen3_next", {"rope_theta": 5e3}, {"rope_parameters": {"rope_theta": 5e3, "partial_rotary_factor": 0.25}}),
]
USUAL = [
    (
        "gpt_oss",
        {
            "rope_theta": 150000.0,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        },
    ),
    ("llama4_text", {"no_rope_layers": []}),
    ("llama4_text", {"no_rope_layers": [1, 1, 0, 1], "moe_layers": [1, 3]}),
    ("llama4_text", {"attn_temperature_tuning": 4}),
    ("mamba2", {"time_step_limit": [0.0, float("inf")], "expand": 2}),
]


@pytest.mark.parametrize(("name", "one", "other"), SPELLINGS, ids=lambda value: str(value)[:40])
def test_configs_that_say_the_same_give_the_same_model(name, one, other):
    assert same_model(name, one, other)
    assert not same_model(name, one, {})


@pytest.mark.parametrize(("name", "said"), USUAL, ids=lambda value: str(value)[:40])
def test_defaults_are_those_of_the_reference(name, said):
    assert same_model(name, said, {})


def test_fields_that_the_reference_ignores_change_nothing():
    assert same_model("gemma3_text", {"attn_logit_softcapping": 3.0}, {})
    assert same_model("gemma3_text", {"hidden_act": "relu", "_sliding_window_pattern": 2}, {})
    assert same_model("gpt_oss", {"hidden_act": "relu", "experts_per_token": 2}, {})
    assert same_model("deepseek_v3", {"num_nextn_predict_layers": 1}, {"num_nextn_predict_layers": 0})


def test_infinity_is_read_in_both_spellings_and_written(tmp_path):
    limits = []
    for spelling in ("Infinity", '{"__float__": "Infinity"}'):
        model = case_model("mamba2/130m")
        model.save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        config = json.loads(path.read_text()) | {"time_step_limit": "HERE"}
        path.write_text(json.dumps(config).replace('"HERE"', f"[0.5, {spelling}]"))
        limits.append(PART.read(tmp_path).model["attention"])
    assert limits[0] == limits[1] and limits[0]["least_step"] == 0.5 and limits[0]["most_step"] is None


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("deepseek_v3", {"topk_method": "greedy"}, "topk_method"),
        ("deepseek_v3", {"num_key_value_heads": 2}, "num_key_value_heads other than"),
        ("qwen3_next", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen3_next", {"num_experts": 0}, "num_experts 0"),
        ("mamba2", {"num_heads": 5}, "no multiple of hidden_size"),
    ],
)
def test_what_a_family_lacks_is_refused_by_name(name, changed, message):
    with pytest.raises(UserError, match=message):
        section(name, **changed)


LEANED_ON = {
    "deepseek_v3": {"num_attention_heads", "num_key_value_heads"},
    "falcon": {"num_attention_heads"},
    "mamba2": {"hidden_size", "num_heads", "head_dim"},
}
"""Fields whose defaults the tiny sizes of others don't fit."""


def fields_to_leave_out():
    for name, family in families().items():
        for field, one in family.file.config.items():
            if not one.required and field not in LEANED_ON.get(name, ()):
                yield name, field, None
            for alias in one.aliases:
                yield name, field, alias


@pytest.mark.parametrize(("name", "field", "alias"), list(fields_to_leave_out()))
def test_defaults_and_other_names_are_those_of_the_reference(name, field, alias):
    family = families()[name]
    config = {**first_examples(family), **REFERENCES[name].extra}
    config.pop(field, None)
    if alias is not None:
        config[alias] = family.file.config[field].examples[-1]
    as_the_reference_reads(family, config)


OLDER = [
    {},
    {"rope_theta": 5e3},
    {"rope_theta": 5e3, "rope_scaling": None},
    {"rope_theta": 5e3, "rope_scaling": {"type": "linear", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    {"rope_theta": 5e3, "rope_local_base_freq": 50.0},
]


def older_spellings():
    for name, family in families().items():
        for older in OLDER if family.file.rope is not None else []:
            # The reference does not hear `type` where types of layers have scalings of their own; none was published.
            if not (family.file.rope.labels and "type" in (older.get("rope_scaling") or {})):
                yield name, older


@pytest.mark.parametrize(("name", "older"), list(older_spellings()), ids=str)
def test_older_spellings_of_rotary_positions_are_read_as_the_reference_reads_them(name, older):
    family = families()[name]
    as_the_reference_reads(family, {**first_examples(family), **REFERENCES[name].extra, **older})


def as_the_reference_reads(family, config):
    made = getattr(transformers, family.file.architecture).config_class(**copy.deepcopy(config)).to_dict()
    ours, theirs = (family.section(family.read_config(one)[0]) for one in (config, made))
    assert list(differences(normal_form(ours), normal_form(theirs))) == []
