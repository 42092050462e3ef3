"""Import and export hold one file's tensors in memory, and the model; not more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from corelm_interchange.hugging_face import HuggingFace
from corelm_interchange.weights import INDEX, Files, write_json, write_shards
from safetensors.torch import load_file

from corelm.conformance.tiny import Silent
from corelm.kinds import TensorFile, write_tensors
from corelm.model.loading import from_imported, load, save_imported

SCRIPT = Path(__file__).with_name("measuring_streams.py")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
}


def folder_of(path, config, largest, dtype=torch.bfloat16):
    """A folder as the hub has them, tensor after tensor, of a model with random weights."""
    dim, width, vocabulary = (config[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    shapes = {"model.embed_tokens.weight": (vocabulary, dim), "lm_head.weight": (vocabulary, dim)}
    shapes["model.norm.weight"] = (dim,)
    for layer in range(config["num_hidden_layers"]):
        own = {f"self_attn.{name}_proj": (dim, dim) for name in "qkvo"}
        own |= {"mlp.gate_proj": (width, dim), "mlp.up_proj": (width, dim), "mlp.down_proj": (dim, width)}
        own |= {"input_layernorm": (dim,), "post_attention_layernorm": (dim,)}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    described = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    path.mkdir()
    write_json(path / "config.json", config)
    write_shards(path, described, lambda name: torch.randn(shapes[name]).to(dtype), largest)
    return sum(tensor.nbytes for tensor in described.values())


def test_a_sharded_folder_goes_through_bit_for_bit(tmp_path):
    folder_of(tmp_path / "hub", CONFIG, 20_000)
    assert len(json.loads((tmp_path / "hub" / INDEX).read_text())["weight_map"]) == 21
    part = HuggingFace(HuggingFace.Config(shard=20_000))
    save_imported(part.read(tmp_path / "hub"), tmp_path / "ours")
    (tmp_path / "back").mkdir()
    part.write(load(tmp_path / "ours"), tmp_path / "back", Silent())
    before, after = Files(tmp_path / "hub"), Files(tmp_path / "back")
    assert set(before) == set(after)
    for name in before:
        assert torch.equal(before.tensor(name), after.tensor(name))
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) == 3
    whole = HuggingFace(HuggingFace.Config()).read(tmp_path / "hub")
    ids = torch.arange(20)[None]
    assert torch.equal(from_imported(whole).logits(ids), load(tmp_path / "ours").logits(ids))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.float64]
)
def test_files_that_were_streamed_are_read_by_safetensors(dtype, tmp_path):
    tensors = {
        "a": torch.randint(0, 2, (3, 5)).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "void": torch.empty(0, 4, dtype=dtype),
        "turned": torch.randint(0, 2, (4, 3)).to(dtype).T,
        "other": torch.randn(7, dtype=torch.float16),
    }
    write_tensors(
        tmp_path / "x.safetensors", {name: t.to("meta") for name, t in tensors.items()}, tensors.__getitem__
    )
    again, ours = load_file(tmp_path / "x.safetensors"), TensorFile(tmp_path / "x.safetensors")
    assert set(again) == set(tensors) == set(ours) and len(ours) == 5
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype == ours.meta(name).dtype
        assert torch.equal(again[name], tensor) and torch.equal(ours[name], tensor)
        assert ours.meta(name).shape == tensor.shape


def test_a_tensor_that_is_not_what_was_announced_is_refused(tmp_path):
    announced = {"a": torch.empty(3, device="meta")}
    with pytest.raises(ValueError, match="not what was announced"):
        write_tensors(tmp_path / "x", announced, lambda name: torch.zeros(4))


def test_an_import_that_fails_leaves_nothing_behind(tmp_path):
    folder_of(tmp_path / "hub", CONFIG, 20_000)
    imported = HuggingFace(HuggingFace.Config()).read(tmp_path / "hub")
    shard = sorted((tmp_path / "hub").glob("model-*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:100])
    imported.tensors.store._files[shard.name].release()  # so that it is opened anew
    with pytest.raises(Exception, match=shard.name):
        save_imported(imported, tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub"]


@pytest.mark.heavy
def test_memory_is_one_file_and_the_model(tmp_path):
    config = {**CONFIG, "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 30}
    config["num_attention_heads"] = 16
    shard = 512 * 10**6
    size = folder_of(tmp_path / "hub", config, shard)
    assert size >= 4 * 10**9
    largest = max(path.stat().st_size for path in (tmp_path / "hub").glob("*.safetensors"))
    steps = [("import", "hub", "ours"), ("export", "ours", "back")]
    for direction, source, target in steps:
        command = [sys.executable, str(SCRIPT), direction, str(tmp_path / source), str(tmp_path / target)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert int(done.stdout) <= 1.2 * (largest + size), f"{direction}: {int(done.stdout) / 1e9:.2f} GB"
        print(f"{direction}: {int(done.stdout) / 1e9:.2f} GB; model {size / 1e9:.2f}, file {largest / 1e9:.2f}")
    before, after = Files(tmp_path / "hub"), Files(tmp_path / "back")
    assert all(torch.equal(before.tensor(name), after.tensor(name)) for name in before)
