"""Runs that start from a model or a tokenizer made elsewhere."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from stage_recipes import MODEL, rows, statuses

import corelm
from corelm.errors import UserError
from corelm.pipeline.records import read_records
from corelm.pipeline.tokens import DiskTokens
from corelm.recipe.errors import RecipeError


def tensors(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["base", "folder"])
def test_a_loaded_model_is_tuned_quantized_measured_and_exported(workshop, made, kind):
    stages = {
        "tuned": workshop.training("finetune", data=workshop.data("conversation")),
        "small": {"use": "quantize", "with": "round-to-nearest"},
        "scores": {
            "use": "evaluate",
            "from": ["model", "tuned", "small"],
            "tasks": [{"use": "perplexity", "data": workshop.data("text")}],
        },
        "out": {"use": "export", "with": "hugging-face", "from": "tuned"},
    }
    result = workshop.run("loaded", stages, model={"load": str(made / kind)}, template="chatml")
    assert [stage.name for stage in result.stages][:2] == ["tokenizer", "model"]
    start, tuned = tensors(result.folder / "model"), tensors(result.folder / "tuned")
    source = tensors(made / "base")
    assert start.keys() == source.keys() and all(torch.equal(start[name], source[name]) for name in source)
    assert any(not torch.equal(start[name], tuned[name]) for name in start)
    assert corelm.load(result.folder / "tuned").tokenizer.encode("é") == corelm.load(made / "base").tokenizer.encode(
        "é"
    )
    assert set(result["scores"].figures) == {f"{name}/bits_per_byte" for name in ("model", "tuned", "small")}
    assert (result.folder / "out" / "config.json").exists()
    again = workshop.run("loaded", stages, model={"load": str(made / kind)}, template="chatml")
    assert set(statuses(again).values()) == {"up to date"}


def test_one_epoch_of_filled_rows_goes_over_the_data_once(workshop, made):
    talks = rows(workshop.folder / "short.jsonl", [{"prompt": "a", "response": f"b{n}"} for n in range(8)])
    data = {"source": {"use": "jsonl", "path": str(talks), "yields": "conversation"}}
    stages = {
        name: workshop.training(
            "finetune", data=data, packer={"use": "padded", "best_fit": filled}, epochs=1, **{"from": "model"}
        )
        for name, filled in (("alone", False), ("filled", True))
    }
    result = workshop.run("epoch", stages, model={"load": str(made / "base")}, template="chatml")
    alone, filled = result["alone"].figures, result["filled"].figures
    assert alone["tokens"] == filled["tokens"], "the same tokens, once"
    assert (alone["steps"], filled["steps"]) == (2, 1), "two answers share a row of 64"


def test_a_corpus_is_tokenized_by_the_loaded_models_tokenizer_and_trained_on(workshop, made):
    stages = {"more": workshop.training("pretrain", tokens=512)}
    sections = {"corpus": workshop.data("text", holdout=0.2), "model": {"load": str(made / "folder")}}
    result = workshop.run("more", stages, **sections)
    store, model = DiskTokens(result.folder / "tokens" / "train"), corelm.load(made / "base")
    first = next(iter(read_records(result.folder / "corpus" / "train.jsonl")))
    assert store[0].ids.tolist() == model.tokenizer.encode(first.text)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(tensors(result.folder / "more").values(), tensors(made / "base").values(), strict=True)
    )


def test_another_loaded_model_redoes_what_depends_on_it(workshop, made):
    stages = {"more": workshop.training("pretrain", tokens=512)}
    copy = workshop.folder / "copy"
    shutil.copytree(made / "base", copy)
    sections = {"corpus": workshop.data("text"), "model": {"load": str(copy)}}
    workshop.run("again", stages, **sections)
    changed = workshop.run("other", {"more": workshop.training("pretrain", tokens=256)}, **sections).folder / "more"
    shutil.rmtree(copy)
    shutil.copytree(changed, copy)
    result = statuses(workshop.run("again", stages, **sections))
    assert result == {
        "corpus": "up to date",
        "tokenizer": "up to date",
        "tokens": "up to date",
        "model": "done",
        "more": "done",
    }


def test_moving_the_loaded_folder_redoes_nothing(workshop, made):
    stages = {"small": {"use": "quantize", "with": "round-to-nearest"}}
    workshop.run("moved", stages, model={"load": str(made / "base")})
    copy = workshop.folder / "elsewhere"
    shutil.copytree(made / "base", copy)
    result = workshop.run("moved", stages, model={"load": str(copy)})
    assert set(statuses(result).values()) == {"up to date"}


def test_a_loaded_model_gets_the_tokenizer_that_the_recipe_loads(workshop, made):
    sections = {"corpus": workshop.data("text"), "tokenizer": "bytes", "model": MODEL}
    plain = workshop.run("plain", {"base": workshop.training("pretrain", tokens=256)}, **sections).folder / "base"
    stages = {"small": {"use": "quantize", "with": "round-to-nearest"}}
    workshop.run("own", stages, model={"load": str(made / "base")})
    result = workshop.run("own", stages, model={"load": str(made / "base")}, tokenizer={"load": str(plain)})
    assert result["model"].status == "done" and "inputs.tokenizer" in result["model"].reason
    assert "<|im_start|>" not in corelm.load(result.folder / "small").tokenizer.specials


@pytest.mark.parametrize("what", ["tokenizer", "."])
def test_a_tokenizer_is_loaded_from_its_folder_or_a_models(workshop, made, what):
    sections = {"corpus": workshop.data("text"), "tokenizer": {"load": str(made / "base" / what)}, "model": MODEL}
    result = workshop.run("tok", {"base": workshop.training("pretrain", tokens=256)}, **sections)
    assert corelm.load(result.folder / "base").tokenizer.specials == corelm.load(made / "base").tokenizer.specials


def test_the_model_before_training_can_be_measured(workshop):
    stages = {
        "base": workshop.training("pretrain", tokens=4096),
        "scores": {"use": "evaluate", "from": ["model", "base"], "tasks": ["perplexity"]},
    }
    sections = {"corpus": workshop.data("text", holdout=0.2), "tokenizer": "bytes", "model": MODEL}
    figures = workshop.run("untrained", stages, **sections)["scores"].figures
    assert figures["base/bits_per_byte"] < 0.8 * figures["model/bits_per_byte"]


def test_a_folder_that_holds_no_model_is_refused_by_name(workshop):
    (workshop.folder / "empty").mkdir()
    stages = {"small": {"use": "quantize", "with": "round-to-nearest"}}
    with pytest.raises(UserError, match="empty holds no model that can be read") as error:
        workshop.run("bad", stages, model={"load": str(workshop.folder / "empty")})
    assert "hugging-face" in error.value.remedy


def test_a_new_tokenizer_for_a_loaded_model_is_refused_when_read(workshop, made):
    sections = {"corpus": workshop.data("text"), "tokenizer": "bytes", "model": {"load": str(made / "base")}}
    with pytest.raises(RecipeError, match="tokenizer of its own"):
        workshop.run("bad", {"more": workshop.training("pretrain", tokens=256)}, **sections)


def test_from_model_without_a_model_section_is_refused_when_read(workshop):
    stages = {"small": {"use": "quantize", "from": "model", "with": "round-to-nearest"}}
    with pytest.raises(RecipeError, match="no such section"):
        workshop.run("bad", stages)


def test_a_loaded_model_without_the_templates_tokens_is_refused_with_a_way_out(workshop, made):
    sections = {"corpus": workshop.data("text"), "tokenizer": "bytes", "model": MODEL}
    plain = workshop.run("plain", {"base": workshop.training("pretrain", tokens=256)}, **sections).folder
    stages = {"tuned": workshop.training("finetune", data=workshop.data("conversation"))}
    with pytest.raises(UserError, match="no special token") as error:
        workshop.run("bad", stages, model={"load": str(plain / "base")}, template="chatml")
    assert "template plain" in error.value.remedy


def test_weights_that_were_altered_are_refused_when_loaded(workshop, made):
    copy = workshop.folder / "copy"
    shutil.copytree(made / "base", copy)
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    stages = {"small": {"use": "quantize", "with": "round-to-nearest"}}
    with pytest.raises(UserError, match="truncated or altered"):
        workshop.run("bad", stages, model={"load": str(copy)})
    assert not (workshop.folder / "runs" / "bad" / "model").exists()


def test_a_model_that_can_not_be_said_in_the_format_is_refused_when_the_recipe_is_read(workshop):
    stages = {"base": workshop.training("pretrain", tokens=256), "out": {"use": "export", "with": "hugging-face"}}
    sections = {"corpus": workshop.data("text"), "tokenizer": "bytes", "model": {**MODEL, "position": "alibi"}}
    with pytest.raises(RecipeError, match="can't hold this recipe's model") as error:
        workshop.run("bad", stages, **sections)
    assert error.value.problems[0].code == "model-not-exportable"
    del stages["out"]
    folder = workshop.run("alibi", stages, **sections).folder
    with pytest.raises(RecipeError, match="can't hold this recipe's model"):
        workshop.run("bad", {"out": {"use": "export", "with": "hugging-face"}}, model={"load": str(folder / "base")})
    assert json.loads((folder / "base" / "model.json").read_text())["model"]["position"]
