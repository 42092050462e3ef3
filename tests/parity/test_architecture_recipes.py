"""The recipes of published models: they validate, have the published size, and are what their family reads and writes."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from pathlib import Path

import pytest
import torch
from corelm_interchange.family import families, family_for, family_of
from corelm_interchange.family_file import plain_data
from corelm_interchange.normal import differences, normal_form

pytest.importorskip("transformers")

from architectures import first_examples

from corelm.model.assemble import assemble
from corelm.recipe.reader import Recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "architectures"
RECIPES = sorted(FOLDER.glob("*.yaml"))
PUBLISHED = [path for path in RECIPES if not path.stem.endswith("-tiny")]


def family_name(path):
    return max((name for name in families() if path.stem.startswith(name)), key=len)


def _page():
    spec = importlib.util.spec_from_file_location("architectures_page", ROOT / "docs" / "architectures_page.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


PAGE = _page()


def read(path):
    return PAGE.model_of(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_validates(path):
    # With layers of every kind, but not with all: hundreds of experts in dozens of layers take long to build.
    config = Recipe.read(path, [f"model.layers={min(8, read(path).layers)}"]).config.model
    assert set(config.layer_names()) == set(read(path).layer_names())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_what_its_family_writes_and_reads(path):
    form = normal_form(read(path).model_dump(mode="json"))
    family, values = family_for(form)
    assert family.name == family_name(path)
    again, notes = family.read_config(family.config(values))
    assert notes == []
    assert list(differences(form, normal_form(family.section(again)))) == []


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_recipe_has_as_many_parameters_as_were_published(path):
    said = re.search(r"([\d,]+) parameters", path.read_text().replace("\n# ", " "))
    assert PAGE.parameters(read(path)) == int(said[1].replace(",", ""))


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem.endswith("-tiny")], ids=lambda path: path.stem
)
def test_parameters_are_counted_right(path):
    assert PAGE.parameters(read(path)) == sum(
        parameter.numel() for parameter in assemble(read(path), 0, device="meta").parameters()
    )


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_recipe_is_what_the_published_config_says(path):
    config = json.loads((Path(__file__).parent / "configs" / f"{path.stem}.json").read_text())
    family = family_of(config)
    values, notes = family.read_config(config)
    assert notes == []
    section = family.section(values)
    assert list(differences(normal_form(read(path).model_dump(mode="json")), normal_form(section))) == []


@pytest.mark.parametrize("name", sorted(families()))
def test_every_family_has_a_published_and_a_tiny_recipe(name):
    assert (FOLDER / f"{name}.yaml").is_file()
    family = families()[name]
    section = family.section(family.read_config(first_examples(family))[0])
    tiny = read(FOLDER / f"{name}-tiny.yaml").model_dump(mode="json")
    assert list(differences(normal_form(tiny), normal_form(section))) == []


def test_the_architectures_of_the_grammar_are_those_of_families():
    page = (ROOT / "docs" / "grammar.md").read_text(encoding="utf-8")
    sections = [
        plain_data(block)["model"] for block in re.findall(r"```yaml\n(model:\n.*?vocab_size.*?)```", page, re.DOTALL)
    ]
    found = [family_for(normal_form(section))[0].name for section in sections]
    assert found == [
        "llama",
        "gpt2",
        "opt",
        "falcon",
        "gemma3_text",
        "deepseek_v3",
        "llama4_text",
        "gpt_oss",
        "qwen3_next",
        "mamba2",
    ]


def test_seven_billion_parameters_assemble_in_two_seconds():
    config = read(FOLDER / "llama-2-7b.yaml")
    assemble(config.model_copy(update={"layers": 1}), 0, device="meta")  # imports what it needs
    start = time.perf_counter()
    model = assemble(config, 0, device="meta")
    assert time.perf_counter() - start < 2
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}
