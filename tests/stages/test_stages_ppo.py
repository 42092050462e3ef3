"""Alignment by PPO, as a stage: it runs, stops, is killed, and goes on to the same bits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stage_recipes import statuses

from corelm.errors import Interrupted
from corelm.pipeline.runner import run
from corelm.pipeline.watch import StageWatch
from corelm.recipe.errors import RecipeError
from corelm.recipe.reader import Recipe


def stages(workshop, steps=8, **options):
    ppo = {"use": "ppo", "rollout": 8, "epochs": 2, "answer_tokens": 6, "value": "scalar", **options}
    return {
        "judge": workshop.training("reward-model", data=workshop.data("preference"), epochs=2),
        "preferred": workshop.training(
            "align",
            data=workshop.data("conversation"),
            steps=steps,
            **{"with": ppo, "from": {"policy": "model", "reference": "model", "reward": "judge"}},
        ),
        "reward": {
            "use": "evaluate",
            "from": {"models": ["model", "preferred"], "judge": "judge"},
            "tasks": [{"use": "mean-reward", "answer_tokens": 6, "data": workshop.data("conversation")}],
        },
    }


def start(made):
    return {"model": {"load": str(made / "base")}, "template": "chatml", "checkpoint_seconds": 0.05}


def weights(result_folder):
    return load_file(result_folder / "preferred" / "model.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def whole(workshop, made):
    return workshop.run("whole", stages(workshop), **start(made))


def test_the_policy_moves_and_is_saved_without_its_value_head(workshop, made, whole):
    before, after = load_file(made / "base" / "model.safetensors"), weights(whole.folder)
    assert before.keys() == after.keys() and not same(before, after)
    assert set(whole["reward"].figures) == {"model/reward", "preferred/reward"}


@pytest.mark.parametrize("at", [3, 4, 6])
def test_stopped_in_a_rollout_or_between_two_it_goes_on_to_the_same_bits(workshop, made, whole, monkeypatch, at):
    real = StageWatch.step

    def step(self, number, total, figures):
        real(self, number, total, figures)
        if self._summary.name == "preferred" and number >= at:
            self._stop.requested = True

    path = workshop.recipe("whole", stages(workshop), **start(made))
    with monkeypatch.context() as patched:
        patched.setattr(StageWatch, "step", step)
        with pytest.raises(Interrupted):
            run(path, workshop.folder / "again")
    result = run(path, workshop.folder / "again")
    assert statuses(result)["preferred"] == "resumed"
    assert same(weights(result.folder), weights(whole.folder))


def test_killed_it_goes_on_to_the_same_bits(workshop, made, whole):
    path, out = workshop.recipe("whole", stages(workshop), **start(made)), workshop.folder / "killed"
    kills = 0
    for moment in (0.02, 0.05, 0.1, 0.2, 0.4):
        child = os.fork()
        if child == 0:
            try:
                run(path, out)
            finally:
                os._exit(0)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert kills
    assert same(weights(run(path, out).folder), weights(whole.folder))


def test_without_prompts_it_is_refused_when_the_recipe_is_read(workshop, made):
    broken = stages(workshop)
    del broken["preferred"]["data"]
    with pytest.raises(RecipeError, match="needs prompts"):
        workshop.run("bad", broken, **start(made))


def test_preferences_as_prompts_are_refused_when_the_recipe_is_read(workshop, made):
    broken = stages(workshop)
    broken["preferred"]["data"] = workshop.data("preference")
    with pytest.raises(RecipeError, match="yields preference"):
        workshop.run("bad", broken, **start(made))


def test_the_recipe_that_comes_along_is_valid():
    recipe = Recipe.read(Path(__file__).parents[2] / "recipes" / "ppo.yaml")
    assert recipe.config.stages["preferred"].inputs == {"policy": "tuned", "reference": "tuned", "reward": "judge"}
