"""Folders of Hugging Face are read: models of theirs compute the same here, and what cannot be read is named."""

import json
import shutil

import pytest
import torch
from corelm_interchange.hugging_face import HuggingFace
from interchange_models import assert_same_logits, ids, llama_of
from safetensors.torch import load_file, save_file

from corelm.errors import UserError
from corelm.model.loading import from_imported

transformers = pytest.importorskip("transformers")

PART = HuggingFace(HuggingFace.Config())
VARIANTS = [
    {},
    {"tie_word_embeddings": True},
    {"attention_bias": True, "mlp_bias": True},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1},
    {"head_dim": 16},
    {"rope_theta": 500_000.0},
    {"hidden_act": "gelu_pytorch_tanh"},
    {"hidden_act": "relu", "rms_norm_eps": 1e-2},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_model_of_theirs_computes_the_same_here(changes, tmp_path):
    theirs = llama_of(**changes)
    theirs.save_pretrained(tmp_path)
    imported = PART.read(tmp_path)
    assert imported.notes == ["the folder has no tokenizer"]
    assert_same_logits(from_imported(imported), theirs)


def test_left_padding_changes_nothing_for_an_imported_model(tmp_path):
    theirs = llama_of()
    theirs.save_pretrained(tmp_path)
    ours = from_imported(PART.read(tmp_path))
    padded = torch.cat([torch.zeros(3, 5, dtype=torch.long), ids()], dim=1)
    mask = torch.cat([torch.zeros(3, 5, dtype=torch.long), torch.ones(3, 20, dtype=torch.long)], dim=1)
    torch.testing.assert_close(ours.logits(padded, mask)[:, 5:], ours.logits(ids()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 777.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}},
        {"rope_theta": 777.0, "rope_scaling": None},
        {"rope_scaling": {"type": "default", "rope_theta": 777.0}},
    ],
)
def test_every_spelling_of_the_rotary_base_is_read(rope, tmp_path):
    theirs = llama_of(rope_theta=777.0)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("rope_parameters", None)
    config.pop("rope_theta", None)
    (tmp_path / "config.json").write_text(json.dumps({**config, **rope}))
    assert_same_logits(from_imported(PART.read(tmp_path)), theirs)


def test_a_folder_of_several_files_is_read_like_one(tmp_path):
    theirs = llama_of()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_logits(from_imported(PART.read(tmp_path)), theirs)


def test_a_missing_or_damaged_file_of_several_is_named(tmp_path):
    llama_of().save_pretrained(tmp_path, max_shard_size="20KB")
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=second.name):
        PART.read(tmp_path)
    second.unlink()
    with pytest.raises(UserError, match=second.name):
        PART.read(tmp_path)


def test_an_index_that_points_outside_or_lacks_a_tensor_is_refused(tmp_path):
    llama_of().save_pretrained(tmp_path, max_shard_size="20KB")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({"weight_map": {**index["weight_map"], "x": "../model.safetensors"}}))
    with pytest.raises(UserError, match="outside the folder"):
        PART.read(tmp_path)
    path.write_text(
        json.dumps({"weight_map": {**index["weight_map"], "x": next(iter(index["weight_map"].values()))}})
    )
    with pytest.raises(UserError, match="lacks the tensor x"):
        PART.read(tmp_path)


def test_pickles_are_not_opened(tmp_path):
    llama_of().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin holds pickles"):
        PART.read(tmp_path)


def edited(tmp_path, **changes):
    llama_of().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' can't be read"),
        ({"rope_parameters": {"rope_type": "proportional", "rope_theta": 1.0}}, "scaled by 'proportional'"),
        ({"rope_scaling": {"type": "axial", "factor": 2.0}, "rope_parameters": None}, "scaled by 'axial'"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0, "finely": 1}, "rope_parameters": None},
            "option 'finely'",
        ),
        ({"rope_scaling": {"type": "linear"}, "rope_parameters": None}, "model.position.0.scaling.factor"),
        ({"hidden_act": "xielu"}, "hidden_act: 'xielu' can't be read"),
        ({"hidden_size": "wide"}, "garbles"),
        ({"hidden_size": 32.5}, "garbles what model.dim needs"),
        ({"num_attention_heads": 0}, "garbles"),
        ({"num_hidden_layers": None}, "lacks or garbles 'num_hidden_layers'"),
    ],
)
def test_what_our_parts_lack_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        PART.read(edited(tmp_path, **changes))


def test_fields_that_are_not_understood_are_named(tmp_path):
    notes = PART.read(edited(tmp_path, use_sliding_window=True)).notes
    assert "config.json: the field 'use_sliding_window' was not understood" in notes


def test_strange_tensors_are_refused_and_old_tables_are_not(tmp_path):
    folder = edited(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors")
    PART.read(folder)
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="self_attn.q_norm.weight"):
        PART.read(folder)


def test_tensors_that_are_missing_are_named(tmp_path):
    folder = edited(tmp_path, mlp_bias=True)
    with pytest.raises(UserError, match=r"lacks 6 tensors, the first is model\.layers\.0\.mlp\.down_proj\.bias"):
        PART.read(folder)


def test_a_tied_head_that_was_stored_twice_is_read_once(tmp_path):
    llama_of(tie_word_embeddings=True).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert "head.weight" not in PART.read(tmp_path).tensors


def test_only_folders_with_a_config_are_recognised(tmp_path):
    assert not PART.recognises(tmp_path)
    llama_of().save_pretrained(tmp_path)
    assert PART.recognises(tmp_path)
    shutil.rmtree(tmp_path)
    assert not PART.recognises(tmp_path)


def test_values_that_only_one_setting_can_have_are_refused_by_name(tmp_path):
    config = transformers.GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "add_cross_attention": True}))
    with pytest.raises(UserError, match="add_cross_attention: True can't be read in a model of the family gpt2"):
        PART.read(tmp_path)


def test_an_unknown_type_is_told_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match="models of type 'mamba' can't be read") as caught:
        PART.read(edited(tmp_path, model_type="mamba"))
    assert "falcon, " in caught.value.remedy and "llama" in caught.value.remedy
