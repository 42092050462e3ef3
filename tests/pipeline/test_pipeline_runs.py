"""Runs: what is done, skipped, redone, refused, and survives."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import corelm
from corelm import files, hookimpl
from corelm.errors import Interrupted, UserError
from corelm.pipeline.checkpoints import StageCheckpoints
from corelm.pipeline.runner import run
from corelm.registration import active


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "base" / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def statuses(result) -> dict[str, str]:
    return {stage.name: stage.status for stage in result.stages}


def test_a_run_makes_every_stage_and_the_next_one_nothing(project):
    first = run(project.recipe, project.out)
    assert set(statuses(first).values()) == {"done"}
    assert [stage.name for stage in first.stages] == ["corpus", "tokenizer", "tokens", "base", "scores"]
    second = run(project.recipe, project.out)
    assert set(statuses(second).values()) == {"up to date"}
    assert second["scores"].figures == first["scores"].figures
    model = corelm.load(project.run_folder / "base")
    assert model.tokenizer.decode(model.tokenizer.encode("héllo")) == "héllo"


def test_the_same_recipe_gives_the_same_bits(project, tmp_path):
    run(project.recipe, project.out)
    run(project.recipe, tmp_path / "again")
    assert same(weights(project.run_folder), weights(tmp_path / "again" / "tiny"))


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ("stages.base.batch=4", {"base", "scores"}),
        ("model.dim=32", {"base", "scores"}),
        ("stages.scores.tasks=[{use: perplexity, limit: 2}]", {"scores"}),
        ("corpus.holdout=0.6", {"corpus", "tokenizer", "tokens", "base", "scores"}),
        ("trackers=[]", set()),
    ],
)
def test_a_change_redoes_what_depends_on_it_and_says_why(project, change, redone):
    run(project.recipe, project.out)
    result = run(project.recipe, project.out, overrides=[change])
    assert {name for name, status in statuses(result).items() if status != "up to date"} == redone
    if redone:
        first = next(stage for stage in result.stages if stage.status != "up to date")
        assert "→" in first.reason or "changed" in first.reason, first.reason


def test_changed_text_is_noticed(project):
    run(project.recipe, project.out)
    (project.folder / "text" / "00.txt").write_text("Something else.\n")
    result = run(project.recipe, project.out)
    assert statuses(result)["corpus"] == "done" and statuses(result)["base"] == "done"


def test_redo_makes_a_stage_again_and_an_unknown_one_is_refused(project):
    run(project.recipe, project.out)
    result = run(project.recipe, project.out, redo=["base"])
    assert statuses(result)["base"] == "done" and "--redo" in result["base"].reason
    assert statuses(result)["scores"] == "up to date", "the same weights came out, so nothing after it changes"
    with pytest.raises(UserError, match="no such stage"):
        run(project.recipe, project.out, redo=["bse"])


def test_other_code_is_named_and_redone_only_when_asked(project):
    run(project.recipe, project.out)
    ledger = project.run_folder / "base" / "stage.json"
    facts = json.loads(ledger.read_text())
    name = next(name for name in facts["provenance"]["files"] if name.endswith("rope.py"))
    facts["provenance"]["files"][name] = "0" * 64
    ledger.write_text(json.dumps(facts))
    result = run(project.recipe, project.out)
    assert statuses(result)["base"] == "up to date" and "rope.py" in result["base"].reason
    result = run(project.recipe, project.out, redo=["changed"])
    assert statuses(result)["base"] == "done" and "rope.py" in result["base"].reason


def test_a_clean_stop_keeps_a_checkpoint_and_the_next_run_ends_with_the_same_bits(project, tmp_path, stopping_at):
    run(project.recipe, tmp_path / "whole")
    with stopping_at("base", 8), pytest.raises(Interrupted, match="step"):
        run(project.recipe, project.out)
    assert not (project.run_folder / "base").exists()
    result = run(project.recipe, project.out)
    assert statuses(result)["base"] == "resumed"
    assert same(weights(project.run_folder), weights(tmp_path / "whole" / "tiny"))


def test_redo_begins_a_stage_anew_that_was_cut_off(project, stopping_at):
    with stopping_at("base", 8), pytest.raises(Interrupted):
        run(project.recipe, project.out)
    assert statuses(run(project.recipe, project.out, redo=["base"]))["base"] == "done"


def test_what_an_interrupted_run_left_is_not_used_after_the_recipe_changed(project, stopping_at):
    with stopping_at("base", 8), pytest.raises(Interrupted):
        run(project.recipe, project.out)
    result = run(project.recipe, project.out, overrides=["stages.base.optimizer.learning_rate=1e-3"])
    assert statuses(result)["base"] == "done"


def test_raised_tokens_go_on_from_the_end_of_the_stable_phase_to_the_same_bits(project, tmp_path):
    schedule = "{use: warmup-stable-decay, warmup: 2, decay: 4}"
    project.write(tokens=640, schedule=schedule)
    run(project.recipe, project.out)
    project.write(tokens=1280, schedule=schedule)
    result = run(project.recipe, project.out)
    assert any("goes on from step" in note for note in result["base"].notes), result["base"].notes
    run(project.recipe, tmp_path / "whole")
    assert same(weights(project.run_folder), weights(tmp_path / "whole" / "tiny"))


def test_raised_tokens_under_a_schedule_that_knows_its_end_start_anew_and_say_why(project):
    run(project.recipe, project.out)
    project.write(tokens=1280)
    result = run(project.recipe, project.out)
    assert any("schedule depends on the total length" in note for note in result["base"].notes)
    assert statuses(result)["base"] == "done"


def test_two_runs_in_one_folder_exclude_each_other(project):
    project.run_folder.mkdir(parents=True)
    with (project.run_folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is at work here") as error:
            run(project.recipe, project.out)
    assert error.value.code == "run-locked"


def test_a_path_that_cannot_be_written_is_named(project):
    blocked = project.folder / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="can't be written") as error:
        run(project.recipe, blocked / "runs")
    assert str(blocked) in str(error.value)


def test_a_full_disk_is_reported_and_nothing_half_written_is_taken_for_whole(project, monkeypatch):
    real = os.fsync

    def full(handle: int) -> None:
        if "checkpoints" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device") as error:
        run(project.recipe, project.out)
    assert error.value.code == "not-writable"
    assert not (project.run_folder / "base").exists()
    monkeypatch.undo()
    assert statuses(run(project.recipe, project.out))["base"] == "done"


@pytest.mark.parametrize("damage", ["truncate", "alter"])
def test_a_damaged_checkpoint_is_refused_by_its_digest(project, stopping_at, damage):
    with stopping_at("base", 8), pytest.raises(Interrupted):
        run(project.recipe, project.out)
    path = next((project.run_folder / ".work").rglob("tensors.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-4] if damage == "truncate" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="truncated or altered") as error:
        run(project.recipe, project.out)
    assert error.value.code == "checkpoint-damaged" and str(path) in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_damaged_result_is_refused_by_name(project, name):
    run(project.recipe, project.out)
    path = project.run_folder / "base" / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=name):
        run(project.recipe, project.out)
    assert statuses(run(project.recipe, project.out, redo=["base"]))["base"] == "done"


def test_weights_altered_without_a_change_of_size_are_refused_when_loaded(project):
    run(project.recipe, project.out)
    path = project.run_folder / "base" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="truncated or altered"):
        corelm.load(project.run_folder / "base")


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_documents(project):
    with pytest.raises(UserError, match=r"step \d+: loss") as error:
        run(project.recipe, project.out, overrides=["stages.base.optimizer.learning_rate=1e38"])
    assert ".txt" in str(error.value)
    assert not (project.run_folder / "base").exists()


def test_an_empty_corpus_is_named(project):
    for path in (project.folder / "text").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="text"):
        run(project.recipe, project.out)


def test_a_tracker_that_raises_is_reported_and_dropped(project, monkeypatch, capsys):
    from corelm_tracking.jsonl import JsonLines

    def broken(self, *args):
        raise RuntimeError("no space for events")

    monkeypatch.setattr(JsonLines, "step", broken)
    assert set(statuses(run(project.recipe, project.out)).values()) == {"done"}
    assert capsys.readouterr().err.count("no space for events") == 1


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    @hookimpl
    def corelm_run_event(self, event, fields):
        self.events.append((event, fields.get("status", "")))

    @property
    def names(self) -> list[str]:
        return [event for event, _ in self.events]


@pytest.fixture
def listener():
    listener = Listener()
    active().manager.register(listener, name="listener")
    yield listener
    active().manager.unregister(name="listener")


def test_a_hook_sees_the_events_in_order(project, listener):
    run(project.recipe, project.out)
    assert listener.names[0] == "run-start" and listener.names[-1] == "run-end"
    assert listener.names.count("stage-start") == listener.names.count("stage-end") == 5
    assert "step" in listener.names and "checkpoint" in listener.names


def test_a_hook_hears_of_stages_that_fail_and_of_those_that_are_up_to_date(project, listener, monkeypatch):
    def broken(self, context, inputs):
        raise UserError("no more")

    with monkeypatch.context() as patched:
        patched.setattr("corelm_stages.pretrain.Pretrain.run", broken)
        with pytest.raises(UserError, match="no more"):
            run(project.recipe, project.out)
    assert ("stage-end", "failed") in listener.events
    run(project.recipe, project.out)
    assert ("stage-end", "up to date") in listener.events


class Member:
    def __init__(self, value: object) -> None:
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_checkpoints_give_nested_states_back_and_keep_the_two_newest(tmp_path):
    checkpoints = StageCheckpoints(tmp_path / "c", 300)
    checkpoints.keep_at = 1
    tensor = torch.arange(6.0).reshape(2, 3).t()
    for step in range(1, 6):
        checkpoints.save(step, {"a": Member({"list": [tensor, 1, None], "text": "é", "step": step})})
    assert sorted(int(path.name) for path in (tmp_path / "c").iterdir()) == [1, 4, 5]
    member = Member(None)
    assert checkpoints.restore({"a": member}) == 5
    assert torch.equal(member.value["list"][0], tensor) and member.value["list"][1:] == [1, None]
    assert member.value["text"] == "é"
    with pytest.raises(UserError, match="members"):
        checkpoints.restore({"b": member})


def test_a_checkpoint_without_its_manifest_is_never_taken(tmp_path):
    checkpoints = StageCheckpoints(tmp_path / "c", 300)
    checkpoints.save(1, {"a": Member(1)})
    checkpoints.save(2, {"a": Member(2)})
    (tmp_path / "c" / "0000000002" / "manifest.json").unlink()
    member = Member(None)
    assert checkpoints.restore({"a": member}) == 1 and member.value == 1


def test_state_that_is_neither_tensor_nor_plain_is_refused_with_its_place(tmp_path):
    with pytest.raises(TypeError, match="a/value/x"):
        StageCheckpoints(tmp_path / "c", 300).save(1, {"a": Member({"x": object()})})
    assert not list((tmp_path / "c").glob("0*")) and not (tmp_path / "c" / ".new").exists()


def test_atomic_writes_leave_the_old_content_when_they_fail(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(UserError, match="No space left"):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
