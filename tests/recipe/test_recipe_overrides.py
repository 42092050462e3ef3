"""Overrides of the command line, and where ``explain`` says that values came from."""

from __future__ import annotations

import pytest
from recipe_texts import SMALL, problems, read, write

from corelm import Recipe, hookimpl, registration
from corelm.errors import UserError
from corelm.recipe.errors import RecipeError

TASKS = SMALL.replace("[perplexity]", "[{use: perplexity, limit: 5}, perplexity, {use: perplexity, limit: 7}]")


def limits(recipe: Recipe) -> list[int | None]:
    return [task["limit"] for task in recipe.resolved()["stages"]["scores"]["tasks"]]


@pytest.mark.parametrize(("place", "expected"), [(0, [9, None, 7]), (1, [5, 9, 7]), (2, [5, None, 9])])
def test_a_number_selects_from_a_list_and_leaves_the_others_alone(place, expected, tmp_path):
    assert limits(read(tmp_path, TASKS, f"stages.scores.tasks.{place}.limit=9")) == expected


def test_an_override_may_be_a_map_or_a_list_in_flow_style(tmp_path):
    recipe = read(tmp_path, SMALL, "model.attention={heads: 8}", "model.mask=[causal]")
    assert recipe.resolved()["model"]["attention"]["heads"] == 8
    assert recipe.resolved()["model"]["attention"]["kv_heads"] == 2
    assert recipe.resolved()["model"]["mask"] == [{"use": "causal"}]


def test_an_option_can_be_set_on_a_part_that_was_written_as_a_bare_name(tmp_path):
    recipe = read(tmp_path, SMALL, "model.position.theta=500")
    assert recipe.resolved()["model"]["position"][0]["theta"] == 500


def test_later_overrides_win(tmp_path):
    assert read(tmp_path, SMALL, "seed=1", "seed=2").config.seed == 2


def explained(recipe: Recipe, path: str) -> str:
    (line,) = recipe.explain(path)
    return line.partition("# ")[2]


def test_explain_names_file_and_place_override_or_default(tmp_path):
    recipe = read(tmp_path, SMALL, "model.dim=64")
    path = tmp_path / "recipe.yaml"
    assert explained(recipe, "model.layers") == f"{path}:12:11"
    assert explained(recipe, "model.dim") == "override model.dim"
    assert explained(recipe, "model.norm.weight") == "default of norm rmsnorm"
    assert explained(recipe, "model.connection.use") == "default of the section model"
    assert explained(recipe, "model.position.0.use") == f"{path}:15:13"


def test_explain_follows_what_a_block_inherits(tmp_path):
    text = SMALL.replace(
        "position: rope", "position: rope\n  blocks: {near: {attention: {kv_heads: 1}}}\n  pattern: near"
    )
    recipe = read(tmp_path, text)
    path = tmp_path / "recipe.yaml"
    assert explained(recipe, "model.blocks.near.attention.kv_heads").startswith(f"{path}:16:")
    assert explained(recipe, "model.blocks.near.attention.heads").startswith(f"{path}:18:")


def test_explain_refuses_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(RecipeError, match=r"did you mean 'model\.attention\.heads'"):
        read(tmp_path, SMALL).explain("model.attention.head")


def test_every_value_of_the_resolved_recipe_has_an_origin(tmp_path):
    for line in read(tmp_path, SMALL, "model.dim=64").explain():
        origin = line.partition("# ")[2]
        assert origin.startswith(("default of ", "override ", str(tmp_path))), line


def test_recipes_that_extend_each_other_in_a_circle_are_refused(tmp_path):
    write(tmp_path, SMALL.replace("seed: 7", "extends: recipe.yaml"), "base.yaml")
    found = problems(tmp_path, "extends: base.yaml\nname: mine\n")
    assert [(p.code, p.mark.line) for p in found] == [("extends", 3)]
    assert "itself" in found[0].message


def test_one_recipe_may_be_reached_on_two_ways(tmp_path):
    write(tmp_path, SMALL, "base.yaml")
    write(tmp_path, "extends: base.yaml\nseed: 1\n", "left.yaml")
    write(tmp_path, "extends: base.yaml\nname: right\n", "right.yaml")
    recipe = read(tmp_path, "extends: [left.yaml, right.yaml]\n")
    assert (recipe.name, recipe.config.seed) == ("right", 7)


def test_a_shipped_recipe_can_not_be_named_outside_of_its_folder(tmp_path):
    found = problems(tmp_path, SMALL.replace("seed: 7", "extends: corelm:../pyproject"))
    assert [p.code for p in found] == ["extends"]


class Refuses:
    @hookimpl
    def corelm_recipe_read(self, recipe: dict[str, object]) -> list[str]:
        recipe["name"] = "changed"
        return ["not on a Sunday"] if recipe["seed"] == 7 else []


class Fails:
    @hookimpl
    def corelm_recipe_read(self) -> list[str]:
        raise ZeroDivisionError("oops")


def with_plugin(plugin: object) -> registration.Registry:
    registry = registration.discover()
    registry.manager.register(plugin, name="acme-rules:rules")
    return registry


def test_a_plugin_may_refuse_a_recipe_but_not_change_it(tmp_path):
    with registration.using(with_plugin(Refuses())):
        (problem,) = problems(tmp_path, SMALL)
        assert "acme-rules:rules" in problem.message
        assert "not on a Sunday" in problem.message
        assert read(tmp_path, SMALL, "seed=8").name == "small"


def test_a_plugin_that_fails_while_it_looks_is_named(tmp_path):
    with (
        registration.using(with_plugin(Fails())),
        pytest.raises(UserError, match=r"acme-rules:rules failed in corelm_recipe_read: ZeroDivisionError"),
    ):
        read(tmp_path, SMALL)
