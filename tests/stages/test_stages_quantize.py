"""The stage quantize: what it reads, what it compares, what it tells."""

from __future__ import annotations

import pytest

import corelm
from corelm.recipe.errors import RecipeError

GPTQ = {"use": "gptq", "bits": 4, "group": 16}
ROUND = {"use": "round-to-nearest", "bits": 8}


def quantize(method, **options):
    return {"small": {"use": "quantize", "with": method, **options}}


def test_a_calibrated_method_without_any_text_is_refused_when_read(workshop, made):
    with pytest.raises(RecipeError, match="reads the corpus"):
        workshop.run("bad", quantize(GPTQ), model={"load": str(made / "base")})


def test_calibration_data_need_no_corpus(workshop, made):
    calibration = {"data": workshop.data("text"), "batches": 2, "batch": 2}
    result = workshop.run("small", quantize(GPTQ, calibration=calibration), model={"load": str(made / "base")})
    assert abs(result["small"].figures["kl"]) < 1 and result["small"].figures["same_top_1"] > 0.5
    assert corelm.load(result.folder / "small").generate("a", max_new_tokens=2) is not None


def test_calibration_data_of_another_type_are_refused_when_read(workshop, made):
    calibration = {"data": workshop.data("conversation")}
    with pytest.raises(RecipeError, match="yields conversation") as error:
        workshop.run("bad", quantize(GPTQ, calibration=calibration), model={"load": str(made / "base")})
    assert error.value.problems[0].path[:4] == ("stages", "small", "calibration", "data")


def test_other_methods_are_compared_on_the_corpus_where_there_is_one(workshop, made):
    start = {"model": {"load": str(made / "base")}}
    alone = workshop.run("alone", quantize(ROUND), **start)["small"].figures
    assert "kl" not in alone
    compared = workshop.run("compared", quantize(ROUND), corpus=workshop.data("text"), **start)["small"].figures
    assert abs(compared["kl"]) < 0.1 and compared["same_top_1"] > 0.8


def test_size_on_disk_is_told_before_and_after(workshop, made):
    result = workshop.run("small", quantize(ROUND), model={"load": str(made / "base")})
    before = (result.folder / "model" / "model.safetensors").stat().st_size / 1e6
    after = (result.folder / "small" / "model.safetensors").stat().st_size / 1e6
    figures = result["small"].figures
    assert (figures["megabytes_before"], figures["megabytes"]) == (before, after) and after < before
    assert any("on disk" in note and f"{after / before:.0%}" in note for note in result["small"].notes)


def test_other_calibration_batches_redo_it(workshop, made):
    start = {"model": {"load": str(made / "base")}}
    calibration = {"data": workshop.data("text"), "batches": 1, "batch": 2}
    workshop.run("small", quantize(GPTQ, calibration=calibration), **start)
    result = workshop.run("small", quantize(GPTQ, calibration={**calibration, "batches": 2}), **start)
    assert result["small"].status == "done" and "batches: 1 → 2" in result["small"].reason
