"""The JSON Schema that editors complete from: it knows every installed part, and refuses what the reader refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from recipe_texts import GOOD, SMALL
from test_recipe_mistakes import MISTAKES

from corelm.recipe.json_schema import schema
from corelm.recipe.yaml import parse
from corelm.registration import active


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    made = schema()
    Draft7Validator.check_schema(made)
    return Draft7Validator(made)


def data(text: str) -> Any:
    return parse(text, "r.yaml", Path()).data


@pytest.mark.parametrize("text", [SMALL, GOOD], ids=["flow", "block"])
def test_recipes_that_validate_fit_the_schema(validator, text):
    assert [error.message for error in validator.iter_errors(data(text))] == []


VISIBLE = [
    "unknown part",
    "unknown part, bare",
    "part of another kind",
    "misspelt key of a part",
    "misspelt key of the model",
    "misspelt section",
    "misspelt key of a stage",
    "misspelt key of a nested part",
    "misspelt key in a list",
    "missing key of a part",
    "wrong type",
    "a number in quotes",
    "out of bounds",
    "out of bounds in a part",
    "another grammar",
    "unsafe name",
]


@pytest.mark.parametrize("name", VISIBLE)
def test_what_an_editor_can_see_is_refused_by_the_schema_too(validator, name):
    text = SMALL.replace(*MISTAKES[name][:2], 1)
    assert list(validator.iter_errors(data(text)))


def test_every_installed_part_has_a_branch_of_its_own_that_allows_no_other_keys():
    definitions = schema()["definitions"]
    for record in active().parts():
        branches = definitions[f"kind:{record.kind}"]["else"]["allOf"]
        found = [b for b in branches if record.qualified in b["if"]["properties"]["use"]["enum"]]
        assert len(found) == 1
        assert found[0]["then"]["additionalProperties"] is False
        assert "use" in found[0]["then"]["properties"]


def test_every_option_has_a_description_for_the_editor_to_show():
    definitions = schema()["definitions"]
    for record in active().parts():
        for branch in definitions[f"kind:{record.kind}"]["else"]["allOf"]:
            for name, option in branch["then"]["properties"].items():
                assert option.get("description"), (record.kind, branch["if"], name)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere():
    made = schema()
    for reference in references(made):
        assert reference.removeprefix("#/definitions/") in made["definitions"]
