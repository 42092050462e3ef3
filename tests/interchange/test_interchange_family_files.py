"""What a family's file may say: its schema, numbers as YAML 1.2 has them, and the page about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from corelm_interchange import operations
from corelm_interchange.expressions import OPERATORS
from corelm_interchange.family import Family
from corelm_interchange.family_file import plain_data, read
from corelm_interchange.normal import normal_form
from pydantic import ValidationError

WRONG = [
    ("model: {dim: 1}", "title"),
    ("title: X\nfield: 1", "field"),
    ("tensors: [{ours: a, theirs: b, steps: [{shuffle: {}}]}]", "is no operation"),
    ("tensors: [{ours: a, theirs: b, steps: [{join: {sizes: [1]}}]}]", "is no operation"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_file_that_does_not_follow_the_schema_is_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        read(text)


def test_numbers_in_files_are_those_of_yaml_1_2():
    assert plain_data("{a: 1e-5, b: -3, c: true, d: null, e: no, f: 1.5, g: 1e6, h: 190:20}") == {
        "a": 1e-5,
        "b": -3,
        "c": True,
        "d": None,
        "e": "no",
        "f": 1.5,
        "g": 1e6,
        "h": "190:20",
    }


PAGE = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_family_on_the_page_is_one():
    (whole,) = [block for block in BLOCKS if block.startswith("# a family")]
    family = Family("page", read(whole))
    assert family.mistakes() == []
    config = {"vocab_size": 9, "n_embd": 8, "n_head": 2, "n_layer": 1}
    values, notes = family.read_config({**config, "model_type": "gpt2", "strange": 1})
    assert notes == ["config.json: the field 'strange' was not understood"]
    assert family.solve(normal_form(family.section(values)))[1] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.startswith("# part of")])
def test_parts_of_families_on_the_page_follow_the_schema(block):
    data = plain_data(block)
    expressions = [*OPERATORS, "$case"]
    assert {word for word in re.findall(r"\{(\$\w+):", block)} <= set(expressions)
    try:
        read(block)
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["type"] != "missing" and one["loc"][0] != "scale"]
        assert wrong == []
    assert data


def test_the_page_names_every_expression_and_every_step():
    for name in OPERATORS:
        assert f"`{name}:" in PAGE, name
    for name in operations.OPERATIONS:
        assert f"`{name}:" in PAGE, name
