"""Finetuning with an adapter, from recipe to model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import corelm
from corelm.errors import UserError
from corelm.kinds import AdaptedLinear, Spec, adapting, declared
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig
from corelm.pipeline.runner import run
from corelm.recipe.errors import RecipeError
from corelm.recipe.reader import Recipe

RECIPE = """\
corelm: 1
name: adapted
seed: 3
corpus: {source: {use: text-files, paths: [text]}}
tokenizer: bytes
model:
  dim: 16
  layers: 2
  context: 24
  position: rope
  attention: {use: gqa, heads: 2}
  feedforward: {use: swiglu, width: 24}
trackers: [jsonl]
stages:
  base: {use: pretrain, tokens: 96, batch: 2, trainer: {use: plain, precision: fp32}}
"""
TUNE = """\
  {name}:
    use: finetune
    from: {source}
    data: {{source: {{use: text-files, paths: [text]}}}}
    steps: 4
    batch: 2
    objective: next-token
    optimizer: {{use: adamw, learning_rate: 2e-2}}
    trainer: {{use: plain, precision: fp32}}
"""
ADAPTER = "    adapter: {use: lora, rank: 3, alpha: 6, dropout: 0.1}\n"


def tune(name: str, *options: str, source: str = "base") -> str:
    return TUNE.format(name=name, source=source) + "".join(f"    {option}\n" for option in options)


def write(folder: Path, *stages: str) -> Path:
    (folder / "text").mkdir(exist_ok=True)
    for number in range(4):
        (folder / "text" / f"{number}.txt").write_text(f"text {number}: " + "to be or not to be " * 3)
    path = folder / "adapted.yaml"
    path.write_text(RECIPE + "".join(stages))
    return path


def logits(folder: Path) -> torch.Tensor:
    return corelm.load(folder).logits(torch.arange(20)[None] + 60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    only = 'targets: ["*.attention.*"]'
    run(
        write(
            folder,
            tune("merged") + ADAPTER,
            tune("beside") + ADAPTER + "    merge: false\n",
            tune("attention", only) + ADAPTER,
            tune("again", source="beside") + ADAPTER,
            tune("onwards", source="beside"),
        ),
        folder / "runs",
    )
    return folder / "runs" / "adapted"


def figures(made: Path, stage: str) -> dict[str, float]:
    return json.loads((made / stage / "stage.json").read_text())["figures"]


def test_merged_and_unmerged_folders_hold_the_same_model(made):
    merged, beside, base = logits(made / "merged"), logits(made / "beside"), logits(made / "base")
    # Both stages have their own seed, as all have, so that their additions differ; each is compared with itself.
    assert not torch.allclose(merged, base, atol=1e-3) and not torch.allclose(beside, base, atol=1e-3)
    model = corelm.load(made / "beside")
    adapted = model.logits(torch.arange(20)[None] + 60)
    adapting.merge_model(model.module, model.transforms[0])
    assert not any(isinstance(child, AdaptedLinear) for child in model.module.modules())
    assert float((model.logits(torch.arange(20)[None] + 60) - adapted).abs().max()) < 1e-5


def test_a_merged_folder_is_one_like_any_other(made):
    base, merged = (json.loads((made / stage / "model.json").read_text()) for stage in ("base", "merged"))
    assert base["transforms"] == merged["transforms"] == []
    assert (
        load_file(made / "base" / "model.safetensors").keys()
        == load_file(made / "merged" / "model.safetensors").keys()
    )


def test_an_unmerged_folder_says_what_was_adapted_and_holds_the_base_bit_for_bit(made):
    facts = json.loads((made / "beside" / "model.json").read_text())
    (record,) = facts["transforms"]
    assert record["adapter"]["use"] == "lora" and record["adapter"]["rank"] == 3
    assert len(record["modules"]) == 2 * 7
    base, beside = (load_file(made / stage / "model.safetensors") for stage in ("base", "beside"))
    added = beside.keys() - {name.replace(".base.", ".") for name in base} - {n for n in beside if ".base." in n}
    assert len(added - base.keys()) == 2 * 14
    for name, tensor in beside.items():
        if name not in added:
            assert torch.equal(tensor, base[name.replace(".base.", ".")]), name
    assert all(float(beside[name].abs().max()) > 0 for name in added), "an addition was never trained"


def test_what_is_not_adapted_keeps_its_bits_and_targets_choose_what_is(made):
    base, merged, attention = (load_file(made / s / "model.safetensors") for s in ("base", "merged", "attention"))
    for name in base:
        inside = name.startswith("layers.") and "norm" not in name
        assert torch.equal(base[name], merged[name]) != inside, name
        assert torch.equal(base[name], attention[name]) != (inside and ".attention." in name), name


def test_the_rank_of_what_was_merged_is_the_adapters(made):
    base, merged = (load_file(made / stage / "model.safetensors") for stage in ("base", "merged"))
    name = next(name for name in base if name.endswith("attention.query.weight"))
    difference = (merged[name] - base[name]).double()
    assert int((torch.linalg.svdvals(difference) > 1e-5).sum()) == 3


def test_the_table_says_how_many_parameters_were_trained(made):
    sizes = [4 * (16 + 16), 16 + 24, 16 + 24, 24 + 16]
    assert figures(made, "merged")["parameters_trained"] == 2 * 3 * sum(sizes)
    assert figures(made, "attention")["parameters_trained"] == 2 * 3 * sizes[0]


def test_an_adapted_model_can_be_adapted_again_and_only_the_new_is_merged(made):
    again, beside = (json.loads((made / stage / "model.json").read_text()) for stage in ("again", "beside"))
    assert again["transforms"] == beside["transforms"]
    old, new = (load_file(made / stage / "model.safetensors") for stage in ("beside", "again"))
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if name.endswith(".base.weight")}
    assert not torch.allclose(logits(made / "again"), logits(made / "beside"), atol=1e-3)


def test_a_stage_without_an_adapter_leaves_the_maps_of_an_earlier_one_alone(made):
    old, new = (load_file(made / stage / "model.safetensors") for stage in ("beside", "onwards"))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if ".base." not in name}


def test_running_again_gives_the_same_bits(made, tmp_path):
    run(write(tmp_path, tune("merged") + ADAPTER), tmp_path / "runs")
    first, second = (load_file(at / "merged" / "model.safetensors") for at in (made, tmp_path / "runs" / "adapted"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_pattern_that_matches_nothing_is_named(tmp_path):
    path = write(tmp_path, tune("merged", 'targets: ["*.atention.*"]') + ADAPTER)
    with pytest.raises(UserError, match=r"'\*\.atention\.\*' matches no linear map") as caught:
        run(path, tmp_path / "runs")
    assert "attention" in str(caught.value)


@pytest.mark.parametrize("option", ['targets: ["*.query"]', "merge: false"])
def test_options_of_an_adapter_without_one_are_refused_when_the_recipe_is_read(tmp_path, option):
    path = write(tmp_path, tune("merged", option))
    with pytest.raises(RecipeError, match="there is no adapter") as caught:
        Recipe.read(path)
    (problem,) = caught.value.problems
    assert problem.code == "adapter-missing" and problem.dotted == f"stages.merged.{option.partition(':')[0]}"


def tiny(dtype: torch.dtype = torch.float64) -> Any:
    section = {"dim": 16, "layers": 2, "context": 24, "attention": {"use": "gqa", "heads": 2}, "feedforward": "mlp"}
    model = assemble(ModelConfig.model_validate(section), 11, dtype=dtype)
    initialise(model, 0)
    return model.eval()


def test_wrapping_a_whole_model_changes_no_logit_and_merging_none_either():
    model, ids = tiny(), torch.arange(11)[None]
    before = model.logits(ids)
    record = adapting.adapt_model(model, Spec.read("adapter", "lora"), seed=1)
    assert torch.equal(model.logits(ids), before)
    added = adapting.additions(model, record)
    assert set(added) == {name for name, p in model.named_parameters() if p.requires_grad and _under(name, record)}
    assert adapting.frozen(model) == {f"{name}.base.weight" for name in record["modules"]} | {
        name for name, _, _ in declared(model) if name.endswith("base.bias")
    }
    with torch.no_grad():
        for number, parameter in enumerate(added.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    adapted = model.logits(ids)
    assert not torch.allclose(adapted, before)
    adapting.merge_model(model, record)
    assert float((model.logits(ids) - adapted).abs().max()) < 1e-10


def _under(name: str, record: dict[str, Any]) -> bool:
    return name.startswith(tuple(f"{module}." for module in record["modules"]))


def test_additions_depend_on_the_seed_and_the_maps_name_alone():
    def drawn(seed: int, targets: list[str]) -> dict[str, torch.Tensor]:
        model = tiny()
        record = adapting.adapt_model(model, Spec.read("adapter", "lora"), targets=targets, seed=seed)
        return {name: p for name, p in adapting.additions(model, record).items() if name.endswith("down")}

    every, some, other = drawn(1, []), drawn(1, ["*.query"]), drawn(2, [])
    assert some.keys() < every.keys()
    assert all(torch.equal(some[name], every[name]) for name in some)
    assert not any(torch.equal(other[name], every[name]) for name in every)
    first, second, *_ = (t for t in every.values() if t.shape == next(iter(every.values())).shape)
    assert not torch.equal(first, second), "two maps of one shape have the same additions"


def test_a_map_adapted_twice_merges_as_a_whole():
    model, ids = tiny(), torch.arange(11)[None]
    for seed in (1, 2):
        record = adapting.adapt_model(model, Spec.read("adapter", "lora"), seed=seed)
        with torch.no_grad():
            for number, parameter in enumerate(adapting.additions(model, record).values()):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    before = model.logits(ids)
    outer = [name for name in record["modules"] if name.endswith(".base")]
    for name in (name.removesuffix(".base") for name in outer):
        model.set_submodule(name, model.get_submodule(name).merged())  # type: ignore[operator]
    assert len(outer) == len(record["modules"])
    assert float((model.logits(ids) - before).abs().max()) < 1e-10


def test_a_map_that_was_quantized_since_can_not_be_merged():
    model = tiny(torch.float32)
    record = adapting.adapt_model(model, Spec.read("adapter", "lora"), seed=1)
    wrapped = model.get_submodule(record["modules"][0])
    wrapped.base = torch.nn.Identity()
    with pytest.raises(UserError, match="quantized after it was adapted") as caught:
        wrapped.merged()  # type: ignore[operator]
    assert caught.value.code == "adapted-map-quantized"
