"""What was read from a source, and what was left out, is in the run's report; broken data end a run with one message."""

from __future__ import annotations

import json

import pytest

from corelm.cli import main
from corelm.pipeline.runner import run

MIXTURE = """
    use: mixture
    ends: all
    parts:
      prose: {source: {use: text-files, paths: [text]}, weight: 3}
      rows: {source: {use: jsonl, path: rows.jsonl, broken: skip}, weight: 1}
"""


@pytest.fixture
def recipe(project):
    """A tiny recipe of a mixture."""
    rows = [json.dumps({"text": f"Row {number} of several words."}) for number in range(8)]
    rows[3] = '{"text": "broken'
    rows[5] = json.dumps({"body": "another column"})
    (project.folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    text = project.recipe.read_text()
    project.recipe.write_text(text.replace("source: {use: text-files, paths: [text]}", f"source: {MIXTURE}"))
    return project.recipe


def test_what_each_part_gave_and_what_was_left_out_is_reported(project, recipe):
    run(str(recipe), project.out)
    report = json.loads((project.run_folder / "corpus" / "report.json").read_text())
    source = report["source"]
    assert source["records"] == sum(report["documents"].values()) == 26
    assert {name: part["records"] for name, part in source["parts"].items()} == {"prose": 20, "rows": 6}
    assert source["parts"]["rows"]["left_out"] == {"broken-line": 2}
    assert "source mixture: rows: left out as broken-line: 2 (rows.jsonl:4, rows.jsonl:6)" in report["read"]
    assert "left out as broken-line: 2" in (project.run_folder / "corpus" / "report.html").read_text()
    notes = [json.loads(line) for line in (project.run_folder / "events.jsonl").read_text().splitlines()]
    assert any("left out as broken-line" in str(event) for event in notes)


def test_without_skipping_a_broken_line_ends_the_run_with_one_message(project, recipe, capsys):
    recipe.write_text(recipe.read_text().replace(", broken: skip", ""))
    assert main(["run", str(recipe), "--out", str(project.out)]) == 2
    said = capsys.readouterr().err
    assert "rows.jsonl:4: not JSON" in said and "Traceback" not in said


def test_parts_of_other_types_are_refused_when_the_recipe_is_read(project, recipe, capsys):
    recipe.write_text(recipe.read_text().replace("path: rows.jsonl", "path: rows.jsonl, yields: conversation"))
    assert main(["validate", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert "yields records of type conversation, the first part text" in said
    assert "tiny.yaml:" in said


def test_an_empty_corpus_is_named(project, recipe, capsys):
    (project.folder / "rows.jsonl").write_bytes(b"\n \n")
    recipe.write_text(recipe.read_text().replace(MIXTURE, "{use: jsonl, path: rows.jsonl}\n"))
    assert main(["run", str(recipe), "--out", str(project.out)]) == 2
    assert "source jsonl yielded no records" in capsys.readouterr().err


def test_a_corpus_that_is_held_out_as_a_whole_is_named(project, recipe, capsys):
    (project.folder / "rows.jsonl").write_bytes(b'{"text": "one alone"}')
    text = recipe.read_text().replace(MIXTURE, "{use: jsonl, path: rows.jsonl}\n")
    assert "holdout: 0.2" in text
    recipe.write_text(text.replace("holdout: 0.2", "holdout: 0.9999999"))
    assert main(["run", str(recipe), "--out", str(project.out)]) == 2
    assert "all 1 are held out (holdout: 0.9999999)" in capsys.readouterr().err
