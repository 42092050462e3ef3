"""Quantized language models, from recipe parts to a folder and back."""

import pytest
import torch
from safetensors import safe_open

from corelm.kinds import Batch, Spec
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.quantizing import quantize_model
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.model.loading import load, save

SHAPES = {
    "llama": {
        "position": [{"use": "rope"}],
        "attention": {"use": "gqa", "heads": 4, "kv_heads": 2},
        "feedforward": {"use": "glu", "width": 192},
    },
    "gpt": {
        "norm": {"use": "layernorm"},
        "position": [{"use": "learned"}],
        "attention": {"use": "gqa", "heads": 4, "qkv_bias": True, "output_bias": True},
        "feedforward": {"use": "mlp", "bias": True},
        "block": {"use": "residual", "layout": "parallel"},
    },
    "recurrent": {"attention": {"use": "gated-linear", "heads": 2}, "feedforward": {"use": "moe"}},
}


class Silent:
    stopping = False

    def note(self, message):
        pass

    def step(self, step, total, figures):
        pass


def model_of(shape):
    config = ModelConfig.model_validate({"dim": 64, "layers": 2, "context": 32, "vocab_size": 80, **SHAPES[shape]})
    model = assemble(config, 80)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 16) ** 0.5
    return model.eval()


def quantized(model, part):
    done = quantize_model(model, Spec.read("quantizer", part), calibration=batches(), watch=Silent())
    model.record_transform(done.record)
    return done


def batches():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 80, (3, 4, 24), generator=generator)
    lengths = torch.randint(8, 25, (3, 4, 1), generator=generator)
    return [Batch(x, x, valid=torch.arange(24) < length) for x, length in zip(ids, lengths, strict=True)]


PARTS = [
    {"use": "gptq", "bits": 4, "group": 32},
    {"use": "gptq", "bits": 3, "group": 16, "symmetric": False, "act_order": True, "scale_dtype": "float16"},
    {"use": "round-to-nearest"},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("part", PARTS)
def test_a_quantized_model_is_saved_small_and_comes_back_equal(shape, part, tmp_path):
    model = model_of(shape)
    done = quantized(model, part)
    assert done.figures["maps"] == sum(isinstance(module, QuantizedLinear) for module in model.modules()) > 0
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    ids = batches()[0].ids
    assert torch.equal(again.logits(ids), model.logits(ids))
    torch.testing.assert_close(again.logits(ids, cached=True), model.logits(ids), rtol=1e-3, atol=1e-4)
    assert again.transforms == [done.record]
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.rpartition(".")[0] in done.record["modules"]]  # noqa: SIM118
        held = sum(file.get_tensor(n).nbytes for n in names if not n.endswith(".bias"))
    assert held == done.figures["bytes_after"]


def test_a_quantized_model_runs_in_bfloat16_through_the_packed_kernels():
    model = model_of("llama")
    quantized(model, PARTS[0])
    ids = batches()[0].ids[:1, :12]
    expected = model.logits(ids)
    half = model.to(torch.bfloat16)
    spread = float(expected.max() - expected.min())
    for cached in (False, True):
        assert float((half.logits(ids, cached=cached).float() - expected).abs().max()) < 0.05 * spread
    linear = half.layers[0].attention.query
    assert linear.kernel(torch.bfloat16, torch.device("cpu"), 1).name == "corelm:int4-packed"
    assert {key[0] for key in linear._prepared} == {"corelm:int4-packed", "corelm:dequantize"}


def test_saving_in_another_dtype_leaves_the_codes_as_they_are(tmp_path):
    model = model_of("gpt")
    quantized(model, PARTS[0])
    save(model, tmp_path / "model", dtype=torch.bfloat16)
    again = load(tmp_path / "model")
    for name, tensor in model.state_dict().items():
        if name.endswith((".codes", ".scale")):
            assert torch.equal(again.state_dict()[name], tensor)
        else:
            assert again.state_dict()[name].dtype == torch.bfloat16


def test_the_heads_and_embeddings_stay_as_they_are():
    model = model_of("gpt")
    before = {name: p.clone() for name, p in model.named_parameters()}
    quantized(model, PARTS[0])
    after = dict(model.named_parameters())
    assert {"embedding.weight", "final_norm.weight"} <= set(after)
    for name, parameter in after.items():
        assert torch.equal(parameter, before[name])
