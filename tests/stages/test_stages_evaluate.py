"""The stage evaluate, and the command of the same name."""

from __future__ import annotations

import json

import pytest

from corelm.cli import main
from corelm.recipe.errors import RecipeError


def test_tasks_that_share_a_headline_are_told_apart(workshop, made):
    data = {"data": workshop.data("text")}
    tasks = [{"use": "perplexity", **data}, {"use": "perplexity", "limit": 3, **data}, {"use": "last-word", **data}]
    stages = {"scores": {"use": "evaluate", "from": "model", "tasks": tasks}}
    result = workshop.run("scores", stages, model={"load": str(made / "base")})
    metrics = json.loads((result.folder / "scores" / "metrics.json").read_text())["model"]
    assert list(metrics) == ["last-word", "perplexity", "perplexity#2"]
    assert result["scores"].figures == {
        "model/perplexity/bits_per_byte": metrics["perplexity"]["bits_per_byte"],
        "model/perplexity#2/bits_per_byte": metrics["perplexity#2"]["bits_per_byte"],
        "model/accuracy": metrics["last-word"]["accuracy"],
    }


def test_models_stand_side_by_side_for_every_task(workshop, made):
    tasks = [
        {"use": "perplexity", "data": workshop.data("text")},
        {"use": "last-word", "data": workshop.data("text")},
    ]
    stages = {
        "small": {"use": "quantize", "with": "round-to-nearest"},
        "scores": {"use": "evaluate", "from": ["model", "small"], "tasks": tasks},
    }
    result = workshop.run("scores", stages, model={"load": str(made / "base")})
    figures, notes = result["scores"].figures, result["scores"].notes
    assert list(figures) == ["model/bits_per_byte", "small/bits_per_byte", "model/accuracy", "small/accuracy"]
    before, after = figures["model/bits_per_byte"], figures["small/bits_per_byte"]
    assert f"perplexity: bits per byte of model {before:.4g}, small {after:.4g}" in notes


def test_tasks_with_data_of_their_own_do_not_depend_on_the_corpus(workshop, made):
    tasks = [{"use": "perplexity", "data": workshop.data("text")}]
    stages = {"scores": {"use": "evaluate", "from": "model", "tasks": tasks}}
    start = {"model": {"load": str(made / "base")}}
    workshop.run("own", stages, corpus=workshop.data("text"), **start)
    result = workshop.run("own", stages, corpus=workshop.data("text", holdout=0.5), **start)
    assert result["corpus"].status == "done" and result["scores"].status == "up to date"


def test_a_task_without_data_needs_a_corpus(workshop, made):
    stages = {"scores": {"use": "evaluate", "from": "model", "tasks": ["perplexity"]}}
    with pytest.raises(RecipeError, match="reads the corpus"):
        workshop.run("bad", stages, model={"load": str(made / "base")})


def measured(made, capsys, task, source):
    command = ["evaluate", str(made / "base"), "--task", f"{{use: {task}, limit: 20}}", "--data", source, "--json"]
    assert main(command) == 0
    return json.loads(capsys.readouterr().out)[task]


@pytest.mark.data
def test_a_model_is_measured_on_hellaswag_by_one_command(made, data, capsys):
    path = data / "hellaswag" / "hellaswag_val_1000.jsonl"
    source = f"{{use: jsonl, path: {path}, yields: choice, columns: {{context: ctx, gold: label}}}}"
    found = measured(made, capsys, "multiple-choice", source)
    assert found["questions"] == 20
    assert 0 <= found["accuracy"] <= 1 and 0 <= found["accuracy_norm"] <= 1


@pytest.mark.data
def test_a_model_is_measured_on_lambada_by_one_command(made, data, capsys):
    path = data / "lambada" / "lambada_openai.jsonl"
    source = f"{{use: jsonl, path: {path}, columns: {{text: [context, continuation]}}}}"
    found = measured(made, capsys, "last-word", source)
    assert found["perplexity"] > 1 and 0 <= found["accuracy"] <= 1
