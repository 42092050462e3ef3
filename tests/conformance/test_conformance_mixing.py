"""Random recipes, the covering array of parts, and the recipes that come with the project."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from corelm_attention.gqa import GroupedQueryAttention
from corelm_positions.rope import RotaryPosition

from corelm.cli import verify
from corelm.conformance import covering as pairs
from corelm.conformance import mixing
from corelm.conformance.covering import containing, covering
from corelm.conformance.mixing import check_one, draw
from corelm.kinds.mask import MaskFacts
from corelm.recipe.reader import Recipe

ROOT = Path(__file__).parents[2]
SEED = 0
CHUNK, CHUNKS = 20, 12
WORKS = {"attention": "gqa", "position": "rope"}
SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_recipes_work_or_are_refused_by_name(chunk):
    failed, accepted = [], 0
    for number in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        outcome = check_one(draw(SEED, number))
        accepted += outcome.accepted
        assert outcome.accepted or outcome.codes or outcome.error, "refused without a reason"
        if outcome.error:
            failed.append(f"draw({SEED}, {number}): {outcome.error}")
    print(f"{accepted} of {CHUNK} accepted")
    assert not failed, "\n".join(failed)


def test_neither_too_few_nor_too_many_random_recipes_validate():
    verdicts = [pairs.refused(draw(SEED, number)) for number in range(CHUNK * CHUNKS)]
    rate = sum(not codes for codes in verdicts) / len(verdicts)
    print(f"acceptance rate {rate:.1%}")
    assert 0.05 < rate < 0.6


def test_random_recipes_are_functions_of_their_numbers():
    assert draw(3, 7) == draw(3, 7)
    assert len({json.dumps(draw(3, number)) for number in range(20)}) == 20
    assert draw(3, 0) != draw(4, 0)


@pytest.mark.parametrize("share", range(4))
def test_every_recipe_of_the_covering_array_is_accepted_and_works(share):
    for data in list(covering(SEED))[share::4]:
        outcome = check_one(data)
        assert outcome.accepted, f"{outcome.codes}: {data}"
        assert not outcome.error, f"{outcome.error}: {data}"


def test_every_pair_of_parts_that_no_rule_forbids_meets_in_an_accepted_recipe():
    missing = set(pairs.allowed())
    for data in covering(SEED):
        missing -= pairs.met(data)
    assert not missing


@pytest.mark.parametrize(
    "two", [two for two in pairs.all_pairs() if pairs.rule(two)], ids=lambda two: f"{two[0][1]}-{two[1][1]}"
)
def test_pairs_that_a_rule_forbids_are_refused_by_its_name(two):
    data = containing(dict(two))
    assert pairs.refused(data) == [pairs.rule(two).code]


def test_the_rules_forbid_what_the_literature_does_and_little_else():
    forbidden = {(two[0][1], two[1][1]) for two in pairs.all_pairs() if pairs.rule(two)}
    assert {("gated-linear", "alibi"), ("gated-linear", "window")} <= forbidden
    assert {("classifier", "pretrain"), ("scalar", "pretrain")} <= forbidden
    assert len(pairs.allowed()) > 0.95 * len(pairs.all_pairs())


PATTERN = {"blocks": {"other": {}}, "layers": 0}
TWO = {"use": "other", "otherwise": "default"}


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"vocab_size": 64}, ["vocabulary-larger-than-model"]),
        ({"position": {"use": "rope", "fraction": 0.1}}, ["nothing-to-rotate"]),
        ({**PATTERN, "pattern": {"at": [0], **TWO}}, []),
        ({**PATTERN, "pattern": {"runs": [{"other": 0}]}}, ["greater-than-equal"]),
    ],
    ids=["vocabulary", "rotation", "at-of-no-layers", "empty-run"],
)
def test_what_random_recipes_once_found_is_refused_by_name_or_works(change, codes):
    data = containing(WORKS)
    data["model"] |= change
    assert pairs.refused(data) == codes
    assert check_one(data).error == ""


def test_an_objective_that_needs_labels_is_refused_for_a_corpus():
    data = containing({**WORKS, "stage": "pretrain"})
    assert pairs.refused(data) == []
    data["stages"]["base"]["objective"] = "classification"
    assert pairs.refused(data) == ["objective-needs-classes"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_recipes_of_the_project_are_accepted(path):
    assert Recipe.read(path).name


def test_there_are_recipes_to_accept():
    assert {"tiny", "quickstart"} <= {path.stem for path in SHIPPED}


def test_a_part_whose_check_misses_a_rule_is_found_out(monkeypatch):
    data = containing(WORKS)
    data["model"]["attention"]["heads"] = 3
    assert check_one(data).codes == ("heads-do-not-divide-dim",)
    monkeypatch.setattr(GroupedQueryAttention, "check", classmethod(lambda cls, config, context: iter(())))
    broken = GroupedQueryAttention.__init__

    def refuse(self, config, layer):
        assert layer.dim % config.heads == 0
        broken(self, config, layer)

    monkeypatch.setattr(GroupedQueryAttention, "__init__", refuse)
    outcome = check_one(data)
    assert not outcome.accepted
    assert outcome.codes == ("model-does-not-assemble",)
    assert "no check of its parts refused it" in outcome.error


def test_a_part_that_decodes_otherwise_than_it_computes_is_found_out(monkeypatch):
    data = containing(WORKS)
    assert check_one(data).error == ""
    prepare = RotaryPosition.prepare
    monkeypatch.setattr(
        RotaryPosition, "prepare", lambda self, positions: prepare(self, positions - positions[:, :1])
    )
    assert "cached logits differ" in check_one(data).error


def test_a_part_that_sees_padding_is_found_out(monkeypatch):
    data = containing(WORKS)
    forward = GroupedQueryAttention.forward

    def blind(self, x, step):
        step.mask.facts = MaskFacts(step.mask.facts.documents)
        return forward(self, x, step)

    monkeypatch.setattr(GroupedQueryAttention, "forward", blind)
    assert "a padded row differs from the row alone" in check_one(data).error


def test_a_part_whose_gradient_is_no_number_is_found_out(monkeypatch):
    data = containing(WORKS)
    forward = GroupedQueryAttention.forward
    monkeypatch.setattr(
        GroupedQueryAttention, "forward", lambda self, x, step: forward(self, x, step) + torch.sqrt(x * 0)
    )
    assert "not finite" in check_one(data).error


def test_a_validator_that_raises_is_found_out(monkeypatch):
    data = containing(WORKS)
    monkeypatch.setattr("corelm.conformance.covering.problems", lambda config, resolved: 1 / 0)
    outcome = check_one(data)
    assert not outcome.accepted
    assert outcome.error == "the validator raised ZeroDivisionError: division by zero"


def test_verify_mixing_reports_rate_codes_and_failures(capsys, monkeypatch):
    arguments = argparse.Namespace(mixing=10, seed=1, json=True)
    assert verify.run(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["drawn"] == 10
    assert facts["failures"] == facts["uncovered"] == []
    assert facts["codes"]
    monkeypatch.setattr(mixing, "exercise", lambda config, rows: 1 / 0)
    monkeypatch.setattr(mixing, "covering", lambda seed: iter(()))
    arguments.json = False
    assert verify.run(arguments) == 1
    printed = capsys.readouterr().out
    assert "10 random recipes (seed 1)" in printed
    assert "ZeroDivisionError" in printed
    assert "never accepted: attention/gqa with position/rope" in printed
