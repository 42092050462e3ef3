"""Classification: trained from a model's body, measured, held to its labels."""

from __future__ import annotations

import json

import pytest
from stage_recipes import rows

import corelm
from corelm.errors import UserError
from corelm.recipe.errors import RecipeError


def stages(workshop, **options):
    labelled = {"data": workshop.data("labelled")}
    return {
        "sorter": workshop.training("classifier", epochs=6, **labelled, **options),
        "scores": {"use": "evaluate", "tasks": [{"use": "class-accuracy", **labelled}]},
    }


def test_a_classifier_learns_and_is_measured(workshop, made):
    result = workshop.run("sorting", stages(workshop), model={"load": str(made / "base")})
    assert result["scores"].figures["sorter/accuracy"] == 1.0
    model = corelm.load(result.folder / "sorter")
    assert model.head.reads == "classes" and model.head.outputs == 2
    metrics = json.loads((result.folder / "scores" / "metrics.json").read_text())
    assert metrics["sorter"]["class-accuracy"] == {"accuracy": 1.0, "accuracy_stderr": 0.0, "texts": 32.0}


def test_texts_longer_than_the_context_are_read_at_their_end(workshop, made):
    long = [{"text": "x" * 300 + (" good" if n % 2 else " bad"), "label": n % 2} for n in range(32)]
    rows(workshop.folder / "labelled.jsonl", long)
    result = workshop.run("sorting", stages(workshop), model={"load": str(made / "base")})
    assert result["scores"].figures["sorter/accuracy"] == 1.0


def test_a_label_without_a_class_is_named_with_its_line(workshop, made):
    rows(workshop.folder / "labelled.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 2}])
    with pytest.raises(UserError, match=r"labelled.jsonl:2: class 2, but the head has classes 0 … 1"):
        workshop.run("sorting", stages(workshop), model={"load": str(made / "base")})
    result = workshop.run(
        "sorting", stages(workshop, head={"use": "classifier", "classes": 3}), model={"load": str(made / "base")}
    )
    assert corelm.load(result.folder / "sorter").head.outputs == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "scalar"}, "not classes"),
        ({"data": "conversation"}, "yields conversation"),
        (
            {"packer": "blocks"},
            "blocks puts several documents into a row; documents with classes need rows of their own",
        ),
        ({"packer": {"use": "padded", "best_fit": True}}, "padded puts several documents into a row"),
        ({"objective": "pairwise-reward"}, "pairwise-reward reads rewards; this stage's model gives classes"),
    ],
)
def test_what_is_no_classification_is_refused_when_read(workshop, made, change, message):
    wrong = stages(workshop)
    wrong["sorter"].update({"data": workshop.data(change["data"])} if "data" in change else change)
    with pytest.raises(RecipeError, match=message):
        workshop.run("bad", wrong, model={"load": str(made / "base")})


def test_a_classifier_is_no_language_model(workshop, made):
    wrong = {**stages(workshop), "out": {"use": "export", "from": "sorter", "with": "hugging-face"}}
    with pytest.raises(RecipeError, match="takes a model; sorter .classifier. makes a classifier"):
        workshop.run("bad", wrong, model={"load": str(made / "base")})
