"""Both trainers: what a resumed run is, and what is saved when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_models import (
    NoCheckpoints,
    Recorder,
    Stream,
    TinyModel,
    fit,
    job,
    on_disk,
    rows,
    same,
    streams_of,
    trainers,
    values,
)

from corelm.errors import Interrupted, UserError


@trainers
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("killed_after", [1, 2, 5])
def test_a_resumed_run_ends_with_the_same_bits(trainer, optimizer, killed_after, tmp_path):
    documents, steps = rows(18, 2), 6

    def run(folder: Path, seed: int, stop_after: int | None) -> tuple[TinyModel, Recorder, Stream]:
        model, watch, made = TinyModel(seed, dropout=0.2), Recorder(stop_after), []

        def streams(rank: int, world: int) -> Stream:
            made.append(Stream(documents, 3, 0, rank, world))
            return made[-1]

        try:
            fit(
                trainer,
                job(
                    model, streams, steps=steps, accumulate=2, optimizer=optimizer, schedule="cosine",
                    watch=watch, checkpoints=on_disk(folder), seed=5,
                ),
            )  # fmt: skip
        except Interrupted:
            assert stop_after is not None
        return model, watch, made[-1]

    whole, trace, stream = run(tmp_path / "whole", 0, None)
    _, before, _ = run(tmp_path / "cut", 0, killed_after)
    resumed, after, rest = run(tmp_path / "cut", 99, None)  # other initial values: all must come from the checkpoint
    assert same(values(whole), values(resumed))
    for name in ("loss", "learning_rate", "gradient_norm", "tokens"):
        assert trace.trace(name) == before.trace(name) + after.trace(name), name
    assert len(before.steps) == killed_after
    assert stream.drawn[2 * killed_after :] == rest.drawn


@trainers
def test_the_result_of_a_finished_run_is_the_same_when_it_is_asked_again(trainer, tmp_path):
    documents = rows(6, 3)
    first = fit(trainer, job(TinyModel(0), streams_of(documents), checkpoints=on_disk(tmp_path)))
    model = TinyModel(1)
    watch = Recorder()
    again = fit(trainer, job(model, streams_of(documents), checkpoints=on_disk(tmp_path), watch=watch))
    assert watch.steps == [], "it trained again"
    assert again.steps == first.steps == 4
    timeless = {name: value for name, value in first.figures.items() if name != "tokens_per_second"}
    assert again.figures == timeless


@trainers
def test_the_last_step_is_saved_and_what_is_due_in_between(trainer):
    class Counting(NoCheckpoints):
        saved: list[int] = []

        def due(self, step: int) -> bool:
            return step == 2

        def save(self, step: int, members: Any) -> None:
            self.saved.append(step)

    checkpoints = Counting()
    checkpoints.saved = []
    fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), checkpoints=checkpoints, steps=5))
    assert checkpoints.saved == [2, 5]


@trainers
def test_members_of_the_job_are_saved_and_come_back(trainer, tmp_path):
    class Coefficient:
        value = 1.0

        def state_dict(self) -> dict[str, Any]:
            return {"value": self.value}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.value = state["value"]

    member = Coefficient()
    member.value = 0.25
    fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), checkpoints=on_disk(tmp_path), members={"kl": member}))
    other = Coefficient()
    fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), checkpoints=on_disk(tmp_path), members={"kl": other}))
    assert other.value == 0.25


@trainers
def test_stopping_saves_a_checkpoint_and_says_how_to_go_on(trainer, tmp_path):
    watch = Recorder(stop_after=2)
    with pytest.raises(Interrupted, match="stopped after step 2 of 9") as caught:
        fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), steps=9, watch=watch, checkpoints=on_disk(tmp_path)))
    assert "Run it again" in caught.value.remedy
    assert on_disk(tmp_path).latest() == 2


@trainers
def test_a_checkpoint_of_another_model_is_refused(trainer, tmp_path):
    fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), checkpoints=on_disk(tmp_path)))
    with pytest.raises(UserError, match=r"another model: head\.map\.weight"):
        fit(trainer, job(TinyModel(outputs=9), streams_of(rows(6, 0)), checkpoints=on_disk(tmp_path), steps=9))
