"""How recipes are laid over each other, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipe_texts import GOOD

from corelm.layering import overlay
from corelm.recipe.json_schema import schema
from corelm.recipe.reader import Recipe
from corelm.recipe.yaml import parse

ROOT = Path(__file__).parents[2]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "use"]), inner, max_size=3)
    ),
    max_leaves=8,
)
maps = st.dictionaries(st.sampled_from(["a", "b", "c"]), plain, max_size=3)


@given(maps)
def test_laying_a_map_over_itself_or_nothing_over_it_changes_nothing(value):
    assert overlay(value, value) == value
    assert overlay(value, {}) == value


@given(maps, maps)
def test_what_is_above_wins_and_neither_is_changed(below, above):
    before = repr(below), repr(above)
    merged = overlay(below, above)
    assert (repr(below), repr(above)) == before
    for key, value in above.items():
        if not isinstance(value, dict | str):
            assert merged[key] == value
    for key in below.keys() - above.keys():
        assert merged[key] == below[key]


def test_another_part_replaces_the_whole_map_and_the_same_one_merges():
    below = {"use": "gqa", "heads": 4, "kv_heads": 2}
    assert overlay(below, {"heads": 8}) == {"use": "gqa", "heads": 8, "kv_heads": 2}
    assert overlay(below, {"use": "gqa", "heads": 8}) == {"use": "gqa", "heads": 8, "kv_heads": 2}
    assert overlay(below, {"use": "other", "x": 1}) == {"use": "other", "x": 1}
    assert overlay(below, "other") == {"use": "other"}
    assert overlay("gqa", {"use": "gqa", "heads": 8}) == {"use": "gqa", "heads": 8}
    assert overlay([1, 2], [3]) == [3]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2.5E+4", 25000.0),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("190:20", "190:20"),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("true", True),
        ("~", None),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("'1'", "1"),
        (".5", 0.5),
        ("-3", -3),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = parse(f"a: {text}\n", "x.yaml", Path()).data["a"]
    assert read == value
    assert type(read) is type(value) or isinstance(value, str)


def test_extends_lays_a_recipe_over_others_and_explain_says_where_from(tmp_path):
    (tmp_path / "base.yaml").write_text(GOOD)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.yaml").write_text("extends: ../base.yaml\nname: mine\nmodel:\n  dim: 64\n")
    recipe = Recipe.read(tmp_path / "sub" / "mine.yaml", overrides=["model.layers=3"])
    assert (recipe.name, recipe.config.model.dim, recipe.config.model.layers) == ("mine", 64, 3)
    lines = {line.split(":")[0]: line for line in recipe.explain("model")}
    assert "mine.yaml:4:8" in lines["model.dim"]
    assert "override model.layers" in lines["model.layers"]
    assert "base.yaml:14:12" in lines["model.attention.heads"]
    assert "default of attention gqa" in lines["model.attention.softcap"]


def test_null_gives_the_default_back(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    recipe = Recipe.read(tmp_path / "a.yaml", overrides=["model.attention.kv_heads=null", "seed=null"])
    assert recipe.config.model.attention.config.kv_heads is None
    assert recipe.config.seed == 0


def test_paths_start_from_the_file_that_names_them(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.yaml").write_text(
        GOOD.replace("{use: python-stdlib}", "{use: text-files, paths: [texts/one.txt]}")
    )
    (tmp_path / "mine.yaml").write_text("extends: base/a.yaml\nname: mine\n")
    recipe = Recipe.read(tmp_path / "mine.yaml")
    assert recipe.config.corpus.source.config.paths == [str(tmp_path / "base" / "texts" / "one.txt")]


def test_a_resolved_recipe_reads_back_as_itself(tmp_path):
    import yaml

    path = tmp_path / "a.yaml"
    path.write_text(GOOD)
    resolved = Recipe.read(path).resolved()
    again = tmp_path / "b.yaml"
    again.write_text(yaml.safe_dump(resolved, sort_keys=False))
    assert Recipe.read(again).resolved() == resolved


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_validates_and_fits_the_schema(path):
    Recipe.read(path)
    data = parse(path.read_text(), str(path), path.parent).data
    jsonschema.Draft7Validator(schema()).validate(data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("use: gqa", "use: gqaa"),
        ("kv_heads: 2", "kv_headz: 2"),
        ("dim: 32", "dim: wide"),
        ("layers: 2", "layers: -1"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(old, new):
    data = parse(GOOD.replace(old, new), "x.yaml", Path()).data
    assert list(jsonschema.Draft7Validator(schema()).iter_errors(data))
    assert not list(jsonschema.Draft7Validator(schema()).iter_errors(parse(GOOD, "x.yaml", Path()).data))
