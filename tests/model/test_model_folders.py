"""Model folders: what is saved comes back bit for bit, or is refused with a reason."""

from __future__ import annotations

import json
import os

import pytest
import torch
from hypothesis import given, settings
from model_helpers import VOCABULARY, close, configs, model_of, tokens, with_bytes
from safetensors import safe_open

import corelm
from corelm.errors import UserError
from corelm.kinds import ParameterInfo, Spec, declare
from corelm.kinds.interchange import Imported
from corelm.model import loading
from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig
from corelm.model.loading import from_imported, load, load_tokenizer, save, tensors_of


def changed(folder, **facts):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_every_model_comes_back_with_the_same_bits(tmp_path_factory):
    @settings(max_examples=25, deadline=None)
    @given(configs())
    def back(config):
        folder = tmp_path_factory.mktemp("models") / "m"
        model, ids = model_of(config), tokens(2, 6)
        save(model, folder)
        again = load(folder)
        assert torch.equal(again.logits(ids), model.logits(ids))
        assert again.config == model.config
        assert again.config.layer_names() == config.layer_names()
        assert not again.training
        assert all(p.requires_grad for p in again.parameters())

    back()


def test_loaded_tensors_are_aligned_as_drawn_ones_are(tmp_path):
    # Matrix products round differently where memory is not aligned, and a file's tensors begin anywhere.
    model = model_of()
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert {p.data_ptr() % 64 for p in again.parameters()} == {p.data_ptr() % 64 for p in model.parameters()} == {0}


def test_tied_tensors_are_saved_once_and_are_one_tensor_afterwards(tmp_path):
    for tied in (True, False):
        model = model_of(head={"use": "language-model", "tied": tied})
        folder = tmp_path / str(tied)
        save(model, folder)
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert ("head.weight" in file.keys()) is not tied  # noqa: SIM118
        again, ids = load(folder), tokens(1, 3)
        before = again.logits(ids)
        with torch.no_grad():
            again.embedding.table.mul_(2)
        hidden = again.hidden(ids)
        close(again.head(hidden), hidden @ (again.embedding.table if tied else again.head.weight).T)
        assert not torch.equal(again.logits(ids), before)


class Shares(torch.nn.Module):
    """A head whose matrix is another module's, registered a second time."""

    def __init__(self, model):
        super().__init__()
        self.weight = model.embedding.weight
        self.own = declare(self, "own", (2,), ParameterInfo("vector"))


def test_a_tensor_under_two_names_is_saved_under_the_first():
    model = model_of()
    model.head.add_module("shares", Shares(model))
    names = list(tensors_of(model))
    assert "embedding.weight" in names
    assert "head.shares.own" in names
    assert "head.shares.weight" not in names


def test_saving_twice_gives_the_same_bytes(tmp_path):
    model = with_bytes()
    save(model, tmp_path / "a")
    save(model, tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [str(path) for path in files][:2] == ["model.json", "model.safetensors"]
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"], "nothing temporary is left"


def test_half_precision_halves_the_file_and_rounds_once(tmp_path):
    model, ids = model_of(), tokens(1, 4)
    save(model, tmp_path / "m", dtype=torch.bfloat16)
    again = load(tmp_path / "m")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter.to(torch.bfloat16))
    assert load(tmp_path / "m", dtype=torch.float32).logits(ids).dtype == torch.float32


def test_a_loaded_model_can_be_saved_over_its_own_folder(tmp_path):
    model = with_bytes(dim=64)
    save(model, tmp_path / "m")
    (tmp_path / "m" / "metrics.json").write_text("{}")
    again, ids = load(tmp_path / "m"), tokens(2, 6)
    before = again.logits(ids)
    inode = (tmp_path / "m" / "model.safetensors").stat().st_ino
    save(again, tmp_path / "m", dtype=torch.bfloat16)
    assert (tmp_path / "m" / "model.safetensors").stat().st_ino != inode, "the file in use is not written into"
    assert torch.equal(again.logits(ids), before)
    assert (tmp_path / "m" / "metrics.json").exists()
    assert load(tmp_path / "m").logits(ids).dtype == torch.bfloat16


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_, path, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    old = model_of(seed=1)
    save(old, tmp_path / "old")
    monkeypatch.setattr(loading, "save_file", full)
    for name in ("new", "old"):
        with pytest.raises(UserError, match="can't be written: No space left"):
            save(model_of(), tmp_path / name)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "old",
        "old/model.json",
        "old/model.safetensors",
    ]
    assert torch.equal(load(tmp_path / "old").logits(tokens(1, 3)), old.logits(tokens(1, 3)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        save(model_of(), tmp_path / "file" / "m")


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_altered_tensors_are_refused_by_their_digest(tmp_path, how):
    save(model_of(), tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.unlink() if how == "gone" else path.write_bytes(data if how == "flipped" else data[:-8])
    with pytest.raises(UserError, match=r"model.safetensors(: truncated or altered| is missing)") as error:
        load(tmp_path / "m")
    assert error.value.code == "model-damaged"


def test_what_can_not_be_read_is_said(tmp_path):
    with pytest.raises(UserError, match="is no model folder"):
        load(tmp_path)
    save(model_of(), tmp_path / "m")
    section = json.loads((tmp_path / "m" / "model.json").read_text())["model"]
    changed(
        tmp_path / "m",
        model={**section, "attention": {"use": "nonesuch"}},
        made_with={"attention/nonesuch": "acme 2.1"},
    )
    with pytest.raises(UserError, match="attention: unknown attention 'nonesuch'") as error:
        load(tmp_path / "m")
    assert "acme 2.1" in error.value.remedy
    changed(tmp_path / "m", model=section, transforms=[{"rotated": {}}])
    with pytest.raises(UserError, match="changed in a way that is not known here: rotated"):
        load(tmp_path / "m")
    changed(tmp_path / "m", format=9)
    with pytest.raises(UserError, match="format is 9, this corelm reads 1"):
        load(tmp_path / "m")
    (tmp_path / "m" / "model.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="model, sha256, transforms, vocab_size missing"):
        load(tmp_path / "m")
    for text in ("[]", "{", '"x"'):
        (tmp_path / "m" / "model.json").write_text(text)
        with pytest.raises(UserError) as error:
            load(tmp_path / "m")
        assert error.value.code == "file-damaged"


def test_the_folder_names_who_its_parts_are_from(tmp_path):
    save(model_of(), tmp_path / "m")
    made_with = json.loads((tmp_path / "m" / "model.json").read_text())["made_with"]
    assert made_with["attention/gqa"] == f"corelm {corelm.__version__}"
    assert made_with["activation/silu"].startswith("corelm "), "parts inside of parts as well"


def test_tokenizer_and_template_come_along(tmp_path):
    model = with_bytes()
    save(model, tmp_path / "m", template=Spec.read("template", {"use": "plain", "user": "Q:"}).build())
    again = corelm.load(tmp_path / "m")
    assert again.tokenizer.encode("añ") == model.tokenizer.encode("añ")
    assert again.template.config.user == "Q:"
    save(again, tmp_path / "n")
    assert load(tmp_path / "n").template.config.user == "Q:"
    for folder in (tmp_path / "m", tmp_path / "m" / "tokenizer"):
        assert corelm.load_tokenizer(folder).encode("añ") == model.tokenizer.encode("añ")
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "m" / "tokenizer" / "part.json").write_text('{"use": "nonesuch"}')
    with pytest.raises(UserError, match="unknown tokenizer 'nonesuch'"):
        load(tmp_path / "m")


def test_a_reward_model_comes_back_with_its_head(tmp_path):
    model, ids = with_bytes(), tokens(2, 5)
    judge = model.with_head(Spec.read("head", {"use": "scalar", "bias": True}), seed=5)
    save(judge, tmp_path / "judge")
    again = load(tmp_path / "judge")
    assert torch.equal(again.scores(ids), judge.scores(ids))
    assert again.head.reads == "scalar"


def test_quantized_and_adapted_models_come_back(tmp_path):
    from corelm.kinds.adapting import adapt_model
    from corelm.kinds.quantizing import quantize_model

    class Quiet:
        stopping = False

        def note(self, text): ...

        def step(self, *_): ...

    ids = tokens(2, 5)
    model = assemble(model_of().config, VOCABULARY)
    model.load_state_dict(model_of().state_dict())
    done = quantize_model(model.eval(), Spec.read("quantizer", {"use": "round-to-nearest", "bits": 8}), watch=Quiet())
    model.record_transform(done.record)
    save(model, tmp_path / "q")
    assert torch.equal(load(tmp_path / "q").logits(ids), model.logits(ids))
    if not [record for record in corelm.components("adapter") if record.name == "lora"]:
        pytest.skip("no adapter is installed")
    model = model_of()
    model.record_transform(adapt_model(model, Spec.read("adapter", "lora"), seed=1))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".base." not in name:
                parameter.add_(0.1)
    save(model, tmp_path / "a")
    assert torch.equal(load(tmp_path / "a").logits(ids), model.logits(ids))


def test_imported_tensors_must_fit_by_name_and_shape():
    model = model_of()
    tensors = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    section = {**model.section, "vocab_size": VOCABULARY}
    read = from_imported(Imported(section, dict(tensors), None, []))
    assert torch.equal(read.logits(tokens(1, 4)), model.logits(tokens(1, 4)))
    for name, wrong in {"final_norm.weight": None, "layers.0.feedforward.up.weight": torch.zeros(3, 3)}.items():
        given_tensors = (
            {**tensors, name: wrong} if wrong is not None else {k: v for k, v in tensors.items() if k != name}
        )
        with pytest.raises(UserError, match=f"does not fit the model: {name}"):
            from_imported(Imported(section, given_tensors, None, []))
    with pytest.raises(UserError, match="does not fit the model: extra"):
        from_imported(Imported(section, {**tensors, "extra": torch.zeros(1)}, None, []))


def test_the_section_is_plain_data_that_reads_back_as_itself():
    model = model_of(
        blocks={"near": {"mask": ["causal", {"use": "window", "size": 4}]}},
        pattern={"every": 2, "use": "near", "otherwise": "default"},
    )
    section = json.loads(json.dumps(model.section))
    assert ModelConfig.model_validate(section) == model.config
