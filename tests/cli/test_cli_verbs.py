"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corelm.cli import VERBS, main

ROOT = Path(__file__).parents[2]


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(capsys, verb):
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert f"corelm {verb}" in out


def test_help_names_every_verb_and_where_to_start(capsys):
    code, out, _ = call(capsys)
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert "corelm init" in out


@pytest.mark.parametrize(
    ("arguments", "piece"),
    [
        (["run", "none.yaml"], "no such file"),
        (["rnu"], "did you mean 'run'?"),
        (["describe", "attention/gqaa"], "did you mean 'gqa'"),
        (["describe", "gqa"], "did you mean attention/gqa"),
        (["list", "attentions"], "unknown kind"),
        (["generate", "nowhere", "--prompt", "x"], "no model folder"),
        (["export", "hugging-face", "nowhere", "--out", "x"], "no model folder"),
        (["report", "nowhere"], "no run's folder"),
        (["evaluate", "nowhere", "--task", "perplexity"], "no model folder"),
    ],
)
def test_a_users_mistake_is_answered_without_a_traceback_and_exit_code_2(
    capsys, tmp_path, monkeypatch, arguments, piece
):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert piece in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_debug_shows_the_traceback(capsys):
    code, _, err = call(capsys, "--debug", "run", "none.yaml")
    assert code == 2
    assert "Traceback" in err


def test_a_mistake_of_ours_exits_with_1_and_says_how_to_see_more(capsys, monkeypatch):
    monkeypatch.setattr("corelm.cli.list_.run", lambda args: 1 / 0)
    code, _, err = call(capsys, "list")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "--debug" in err


def test_list_is_json_with_what_scripts_need(capsys):
    code, out, _ = call(capsys, "list", "--json")
    assert code == 0
    records = json.loads(out)
    assert {"kind", "name", "distribution", "version", "summary"} <= records[0].keys()
    assert ("attention", "gqa") in {(record["kind"], record["name"]) for record in records}


def test_describe_tells_options_with_bounds_defaults_and_descriptions(capsys):
    code, out, _ = call(capsys, "describe", "attention/gqa")
    assert code == 0
    assert "kv_heads" in out
    assert "default" in out
    assert "gqa.py" in out
    assert json.loads(call(capsys, "describe", "attention/gqa", "--json")[1])["options"]
    assert "Contract" in call(capsys, "describe", "attention")[1]


def test_validate_gives_problems_as_json(capsys, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("corelm: 1\nname: x\nmodell: {}\n")
    code, out, _ = call(capsys, "validate", path, "--json")
    assert code == 2
    problem = json.loads(out)[0]
    assert (problem["code"], problem["path"], problem["line"], problem["suggestion"]) == (
        "unknown-key",
        "modell",
        3,
        "model",
    )
    assert call(capsys, "validate", ROOT / "recipes" / "quickstart.yaml")[0] == 0


def test_init_writes_a_recipe_that_validates_and_never_over_another(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "init")[0] == 0
    assert call(capsys, "validate", "recipe.yaml")[0] == 0
    assert json.loads((tmp_path / "corelm.schema.json").read_text())["title"]
    before = (tmp_path / "recipe.yaml").read_text()
    code, _, err = call(capsys, "init")
    assert code == 2
    assert "there already" in err
    assert (tmp_path / "recipe.yaml").read_text() == before


def test_plan_counts_parameters_and_steps(capsys):
    code, out, _ = call(capsys, "plan", ROOT / "recipes" / "quickstart.yaml", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["model"]["parameters"] == sum(facts["model"]["by_section"].values())
    assert next(s for s in facts["stages"] if s["name"] == "base")["steps"] > 0


def test_explain_says_where_a_value_came_from(capsys):
    code, out, _ = call(capsys, "explain", ROOT / "recipes" / "tiny.yaml", "model.attention")
    assert code == 0
    assert "tiny.yaml:" in out
    assert "default of attention gqa" in out


def test_listing_takes_less_than_a_third_of_importing_torch():
    def seconds(*command: str) -> float:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            times.append(time.perf_counter() - begun)
        return min(times)

    assert seconds("-m", "corelm.cli", "list") < seconds("-c", "import torch") / 3
