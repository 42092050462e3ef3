"""YAML as recipes read it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelm.recipe.errors import RecipeError
from corelm.recipe.yaml import MAX_BYTES, Document, parse, read_file, scalar

HERE = Path("/somewhere")

CORE_SCALARS = [
    ("1e-3", 0.001),
    ("2E5", 2e5),
    (".5", 0.5),
    ("1.", 1.0),
    ("-1.5e+2", -150.0),
    (".inf", math.inf),
    ("-.Inf", -math.inf),
    ("12", 12),
    ("+12", 12),
    ("-0", 0),
    ("0o17", 15),
    ("0x1F", 31),
    ("017", 17),
    ("true", True),
    ("FALSE", False),
    ("~", None),
    ("null", None),
    ("", None),
    ("yes", "yes"),
    ("no", "no"),
    ("on", "on"),
    ("Off", "Off"),
    ("y", "y"),
    ("190:20", "190:20"),
    ("1_000", "1_000"),
    ("0b11", "0b11"),
    ("2026-01-01", "2026-01-01"),
    ("1e", "1e"),
    ("tRue", "tRue"),
    ("e3", "e3"),
    (".", "."),
    ("-", "-"),
]


@pytest.mark.parametrize(("text", "value"), CORE_SCALARS)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    found = scalar(text)
    assert (found, type(found)) == (value, type(value))


def test_nan_is_read_as_a_float():
    assert math.isnan(scalar(".nan"))


def test_quoted_scalars_and_block_scalars_are_strings():
    document = parse("a: '1'\nb: \"true\"\nc: |\n  12\nd: !!str 3\n", "r.yaml", HERE)
    assert document.data == {"a": "1", "b": "true", "c": "12\n", "d": "3"}


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
CHARACTERS = TEXT.filter(lambda name: name != "<<")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(CHARACTERS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(CHARACTERS, JSON, min_size=1, max_size=4))
def test_every_json_document_reads_as_itself(value):
    document = parse(json.dumps(value), "r.yaml", HERE)
    assert document.data == value
    assert not document.problems


NAME = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("null", "true", "false")
)
TREE = st.recursive(
    st.integers(0, 99),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAME, inner, min_size=1, max_size=3),
    max_leaves=15,
)


def block(
    value: object,
    indent: int,
    path: tuple[str | int, ...],
    places: dict[tuple[str | int, ...], tuple[int, int]],
    lines: list[str],
) -> None:
    """Write block style by hand and note where every key stands."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    for key, inner in pairs:
        here = (*path, key)
        lead = f"{key}:" if isinstance(value, dict) else "-"
        if isinstance(value, dict):
            places[here] = (len(lines) + 1, indent + 1)
        if isinstance(inner, dict | list):
            lines.append(" " * indent + lead)
            block(inner, indent + 2, here, places, lines)
        else:
            lines.append(" " * indent + f"{lead} {inner}")


@given(st.dictionaries(NAME, TREE, min_size=1, max_size=4))
def test_every_key_has_the_line_and_column_where_it_stands(tree):
    places: dict[tuple[str | int, ...], tuple[int, int]] = {}
    lines: list[str] = []
    block(tree, 0, (), places, lines)
    document = parse("\n".join(lines), "r.yaml", HERE)
    assert document.data == tree
    assert {path: (mark.line, mark.column) for path, mark in document.keys.items()} == places
    for path, mark in document.keys.items():
        assert mark.excerpt[mark.column - 1 : mark.column - 1 + mark.length] == path[-1]


def refusal(text: str) -> tuple[str, int, str]:
    with pytest.raises(RecipeError) as caught:
        parse(text, "r.yaml", HERE)
    problem = caught.value.problems[0]
    return problem.code, problem.mark.line, problem.render()


SYNTAX = [
    ("a:\n\tb: 1\n", "yaml-syntax", 2, "a tab"),
    ("a: 1\n  b: 2\n", "yaml-syntax", 2, "indentation"),
    ("a: [1, 2\nb: 3\n", "yaml-syntax", 2, "bracket"),
    ("a: 'x\n", "yaml-syntax", 2, "quote"),
    ("a: b: c\n", "yaml-syntax", 1, "indentation"),
    ("a: *nobody\n", "yaml-alias", 1, "nobody"),
    ("a: &x [*x]\n", "yaml-alias", 1, "contains itself"),
    ("a: 1\n---\nb: 2\n", "yaml-documents", 2, "second document"),
    ("? [a]\n: 1\n", "yaml-key", 1, "plain name"),
    ("a: \x07\n", "yaml-syntax", 1, "not allowed"),
    ('a: "\\ud800"\n', "yaml-surrogate", 1, "surrogate"),
    ("a: " + "[" * 60 + "]" * 60, "yaml-too-deep", 1, "levels deep"),
    ("", "recipe-empty", 0, "empty"),
    ("# only a comment\n", "recipe-empty", 0, "empty"),
]


@pytest.mark.parametrize(("text", "code", "line", "said"), SYNTAX)
def test_what_is_no_yaml_is_refused_with_its_line(text, code, line, said):
    found = refusal(text)
    assert found[:2] == (code, line)
    assert said in found[2]


def kept(text: str) -> Document:
    return parse(text, "r.yaml", HERE)


@pytest.mark.parametrize(
    ("text", "code", "path", "line"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "duplicate-key", ("b", "c"), 4),
        ("{a: 1, a: 1}", "duplicate-key", ("a",), 1),
        ("a: !python/object:os.system x\n", "yaml-tag", (), 1),
        ("a: !!binary eA==\n", "yaml-tag", (), 1),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "yaml-merge-key", ("c", "<<"), 3),
    ],
)
def test_what_yaml_allows_but_recipes_do_not_is_named_and_reading_goes_on(text, code, path, line):
    (problem,) = kept(text).problems
    assert (problem.code, problem.path, problem.mark.line) == (code, path, line)


def test_aliases_are_written_out():
    assert kept("a: &x {b: [1, 2]}\nc: *x\n").data == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}


def test_a_billion_laughs_stop_early():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert refusal("\n".join(lines))[0] == "yaml-too-large"


def file_refusal(path: Path) -> tuple[str, int, int, str]:
    with pytest.raises(RecipeError) as caught:
        read_file(path)
    problem = caught.value.problems[0]
    return problem.code, problem.mark.line, problem.mark.column, str(caught.value)


def test_files_that_can_not_be_read_are_refused_one_by_one(tmp_path):
    (tmp_path / "other.yaml").write_text("a: 1")
    code, _, _, text = file_refusal(tmp_path / "missing.yaml")
    assert code == "recipe-missing" and "other.yaml" in text
    assert "doesn't exist" in file_refusal(tmp_path / "nowhere" / "missing.yaml")[3]
    assert file_refusal(tmp_path)[0] == "recipe-is-a-folder"
    assert file_refusal(tmp_path / "other.yaml" / "below.yaml")[0] == "recipe-unreadable"
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    assert file_refusal(large)[0] == "recipe-too-large"


def test_bytes_that_are_not_utf_8_are_named_with_their_place(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: 1\nb: caf\xe9\n".encode("latin-1"))
    code, line, column, text = file_refusal(path)
    assert (code, line, column) == ("recipe-not-utf-8", 2, 7)
    assert "0xe9" in text


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(path).data == {"a": 1}
