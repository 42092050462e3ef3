"""Hugging Face folders, both ways, against transformers on random weights."""

import json
import re
import shutil
from importlib.resources import files

import pytest
import torch
from corelm_interchange import family, family_file, fields, proof
from corelm_interchange.hugging_face import HuggingFace
from corelm_interchange.weights import Files
from safetensors.torch import load_file, save_file

from corelm.errors import UserError
from corelm.kinds import Batch, Spec
from corelm.kinds.quantizing import quantize_model
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.model.loading import from_imported

transformers = pytest.importorskip("transformers")

PART = HuggingFace(HuggingFace.Config())


class Notes:
    stopping = False

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)

    def step(self, step, total, figures):
        pass


def section(**changes):
    base = {
        "dim": 32,
        "layers": 2,
        "context": 64,
        "vocab_size": 99,
        "norm": {"use": "rmsnorm", "eps": 1e-5},
        "position": [{"use": "rope", "theta": 5000.0}],
        "attention": {"use": "gqa", "heads": 4, "kv_heads": 2},
        "feedforward": {"use": "glu", "width": 48},
        "head": {"use": "language-model", "tied": False},
    }
    return {**base, **changes}


def drawn(module, seed=0):
    """Redraw every parameter, norms too: a gain of one hides that it was forgotten."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        size = 0.5 if parameter.dim() > 1 else 1.0
        parameter.data = (torch.randn(parameter.shape, generator=generator) * size).to(parameter.dtype)
    return module.eval()


def model_of(**changes):
    return drawn(assemble(ModelConfig.model_validate(section(**changes)), 99))


def llama_of(seed=0, **changes):
    sizes = {
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
    }
    return drawn(transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **changes})), seed)


def ids(rows=3, time=20):
    return torch.randint(0, 99, (rows, time), generator=torch.Generator().manual_seed(7))


def assert_same_logits(ours, theirs):
    with torch.no_grad():
        expected = theirs(ids()).logits.float()
    spread = float(expected.max() - expected.min())
    for cached in (False, True):
        assert float((ours.logits(ids(), cached=cached) - expected).abs().max()) <= 1e-4 * spread


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


def test_both_spellings_of_the_rotary_base_are_written(tmp_path):
    PART.write(model_of(), tmp_path, Notes())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5000.0


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


def test_only_folders_with_a_config_are_recognised(tmp_path):
    assert not PART.recognises(tmp_path)
    llama_of().save_pretrained(tmp_path)
    assert PART.recognises(tmp_path)
    shutil.rmtree(tmp_path)
    assert not PART.recognises(tmp_path)


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
