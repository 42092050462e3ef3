"""Folders for Hugging Face are written: models of ours compute the same there, or nothing is left behind."""

import json
import re
from importlib.resources import files

import pytest
import torch
from corelm_interchange import family, family_file, fields, proof
from corelm_interchange.hugging_face import HuggingFace
from corelm_interchange.weights import Files
from interchange_models import Notes, assert_same_logits, ids, llama_of, model_of, section
from safetensors.torch import load_file, save_file

from corelm.errors import UserError
from corelm.kinds import Batch, Spec
from corelm.kinds.quantizing import quantize_model
from corelm.model.config import ModelConfig
from corelm.model.loading import from_imported

transformers = pytest.importorskip("transformers")

PART = HuggingFace(HuggingFace.Config())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_tensor_of_theirs_comes_back_bit_for_bit(dtype, tmp_path):
    theirs = llama_of().to(dtype)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    theirs.save_pretrained(tmp_path / "in")
    model = from_imported(PART.read(tmp_path / "in"))
    watch = Notes()
    PART.write(model, tmp_path / "out", watch)
    before, after = load_file(tmp_path / "in/model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert proof.same_tensors(before, after) is None
    assert watch.notes[-1] == f"proved by transformers {transformers.__version__}: equal logits and greedy ids"


OURS = [
    {},
    {"head": {"use": "language-model", "tied": True}},
    {"attention": {"use": "gqa", "heads": 4, "qkv_bias": True, "output_bias": True}},
    {"attention": {"use": "gqa", "heads": 4, "kv_heads": 1, "head_dim": 6, "dropout": 0.1}},
    {"feedforward": {"use": "swiglu", "bias": True}, "block": {"use": "residual", "dropout": 0.1}},
    {"feedforward": {"use": "glu", "activation": "gelu", "width": 40}},
    {"position": [{"use": "rope", "theta": 123.0}], "final_norm": {"use": "rmsnorm", "eps": 1e-5}},
]


@pytest.mark.parametrize("changes", OURS)
def test_a_model_of_ours_computes_the_same_there_and_comes_back(changes, tmp_path):
    model, watch = model_of(**changes), Notes()
    PART.write(model, tmp_path, watch)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert_same_logits(model, theirs)
    again = from_imported(PART.read(tmp_path))
    assert torch.equal(again.logits(ids()), model.logits(ids()))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert "proved by corelm's own reader: every tensor is equal bit for bit" in watch.notes
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "README.md"}


def test_both_spellings_of_the_rotary_base_are_written(tmp_path):
    PART.write(model_of(), tmp_path, Notes())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5000.0


REFUSED = [
    ({"attention": {"use": "gated-linear", "heads": 4}}, "attention gated-linear"),
    ({"attention": None}, "a model without attention"),
    ({"attention": {"use": "gqa", "heads": 4, "qkv_bias": True}}, "output_bias: False"),
    ({"attention": {"use": "gqa", "heads": 4, "softcap": 30.0}}, "softcap: 30.0"),
    ({"attention": {"use": "gqa", "heads": 4, "scale": 0.5}}, "scale: 0.5"),
    ({"attention": {"use": "gqa", "heads": 4, "qk_norm": "rmsnorm"}}, "qk_norm"),
    ({"position": [{"use": "alibi"}]}, "position alibi"),
    ({"position": [{"use": "learned"}]}, "position learned"),
    ({"position": []}, "no position"),
    ({"position": ["rope", "rope"]}, "2 parts of kind position (rope, rope)"),
    ({"position": [{"use": "rope", "pairing": "interleaved"}]}, "pairing: interleaved"),
    ({"mask": [{"use": "causal"}, {"use": "window", "size": 8}]}, "window"),
    ({"feedforward": {"use": "mlp"}}, "feedforward mlp"),
    ({"feedforward": {"use": "moe", "experts": 4}}, "feedforward moe"),
    ({"feedforward": {"use": "glu", "activation": "identity", "bias": True}, "normed": False}, "normed: False"),
    ({"norm": {"use": "layernorm"}}, "norm layernorm"),
    ({"norm": {"use": "rmsnorm", "offset": True}}, "offset: True"),
    ({"final_norm": {"use": "rmsnorm", "eps": 0.1}}, "final_norm rmsnorm with eps: 0.1"),
    ({"normed": False}, "normed: False"),
    ({"block": {"use": "residual", "layout": "post"}}, "layout: post"),
    ({"embedding": {"use": "token", "scale": "sqrt-dim"}}, "scale: sqrt-dim"),
    ({"head": {"use": "language-model", "softcap": 30.0}}, "softcap: 30.0"),
    ({"head": {"use": "scalar"}}, "head scalar"),
    ({"layers": 0}, "a model without layers"),
    (
        {"blocks": {"far": {"position": {"use": "rope", "theta": 9.0}}}, "pattern": ["far", "default"]},
        "layers that differ",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_llama_lacks_is_refused_by_name(changes, message):
    resolved = ModelConfig.model_validate(section(**changes)).model_dump(mode="json")
    reason = HuggingFace(HuggingFace.Config(family="llama")).refuses(resolved)
    assert message in reason and "the nearest, llama, has no counterpart for" in reason
    if reason := PART.refuses(resolved):  # some other family may have words for it
        assert "no family that is written for Hugging Face has words for this model" in reason


def test_a_model_of_another_shape_is_not_written(tmp_path):
    with pytest.raises(UserError, match="no counterpart for .*feedforward mlp"):
        PART.write(model_of(feedforward={"use": "mlp"}), tmp_path, Notes())
    assert list(tmp_path.iterdir()) == []


def test_llama_shaped_recipes_are_not_refused():
    for changes in OURS:
        assert PART.refuses(ModelConfig.model_validate(section(**changes)).model_dump(mode="json")) is None


def test_a_mismatch_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(fields.TABLES, "activations", {"gelu": "silu"})  # a wrong table, both ways
    with pytest.raises(UserError, match="transformers computes other logits"):
        PART.write(model_of(), tmp_path, Notes())
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_table_of_names_is_noticed(tmp_path, monkeypatch):
    other = {"q_proj": "o_proj", "o_proj": "q_proj"}
    text = (files("corelm_interchange") / "families/llama.yaml").read_text()
    swapped = family_file.read(re.sub("[qo]_proj", lambda found: other[found[0]], text))
    monkeypatch.setattr(family, "families", lambda: {"llama": family.Family("llama", swapped)})
    with pytest.raises(UserError, match="transformers computes other logits"):
        PART.write(model_of(), tmp_path, Notes())
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_changed_on_the_way_is_noticed(tmp_path, monkeypatch):
    def careless(folder, described, read, largest):
        changed = {name: read(name).clone() for name in described}
        changed["model.norm.weight"][3] += 1e-6
        save_file(changed, folder / "model.safetensors")

    monkeypatch.setattr("corelm_interchange.hugging_face.write_shards", careless)
    with pytest.raises(UserError, match=r"the tensor final_norm\.weight differs"):
        PART.write(model_of(), tmp_path, Notes())
    assert list(tmp_path.iterdir()) == []


def test_another_greedy_continuation_is_noticed(tmp_path, monkeypatch):
    model = model_of()
    honest = model.generate_ids
    monkeypatch.setattr(model, "generate_ids", lambda *args, **more: honest(*args, **more).flip(1) + 1)
    with pytest.raises(UserError, match="transformers continues greedily with"):
        PART.write(model, tmp_path, Notes())


def test_without_transformers_it_says_that_it_was_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("corelm_interchange.hugging_face.transformers_version", lambda: None)
    watch = Notes()
    PART.write(model_of(), tmp_path, watch)
    assert "not compared with transformers" in watch.notes[-1]


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        PART.write(model_of(), tmp_path, Notes())
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_quantized_model_is_written_as_the_weights_it_stands_for(tmp_path):
    model, watch = model_of(), Notes()
    quantize_model(
        model,
        Spec.read("quantizer", {"use": "gptq", "bits": 4, "group": 16}),
        calibration=[Batch(ids(), ids())],
        watch=watch,
    )
    PART.write(model, tmp_path, watch)
    assert "quantized maps were written as the weights that their codes stand for" in watch.notes
    assert_same_logits(model, transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval())
    weight = model.layers[0].attention.query.canonical().dequantize()
    assert torch.equal(Files(tmp_path).tensor("model.layers.0.self_attn.q_proj.weight"), weight)


def test_a_family_may_be_named(tmp_path):
    named = HuggingFace(HuggingFace.Config(family="gpt2"))
    resolved = ModelConfig.model_validate(section()).model_dump(mode="json")
    assert "the nearest, gpt2, has no counterpart for" in named.refuses(resolved)
    assert HuggingFace(HuggingFace.Config(family="llama")).refuses(resolved) is None
    with pytest.raises(UserError, match="there is no family 'gpt7'"):
        HuggingFace(HuggingFace.Config(family="gpt7")).write(model_of(), tmp_path, Notes())


def test_a_model_too_large_to_compare_is_said_to_be(tmp_path):
    watch = Notes()
    HuggingFace(HuggingFace.Config(compared=10)).write(model_of(), tmp_path, watch)
    assert watch.notes[-1].startswith("not compared with transformers: 0.0 GB are more than the option compared")
