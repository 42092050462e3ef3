"""Both trainers: broken losses, data that end and jobs without a parameter are named, and leave nothing behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from training_models import (
    Parts,
    Recorder,
    Stream,
    TinyModel,
    fit,
    job,
    on_disk,
    padded,
    rows,
    streams_of,
    trainers,
    values,
)

from corelm.errors import UserError
from corelm.kinds import IGNORE, Batch


@trainers
def test_nothing_to_train_is_refused(trainer):
    with pytest.raises(UserError, match="no parameter is left to train") as caught:
        fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), trainable=lambda name: False))
    assert caught.value.code == "nothing-to-train"


@trainers
def test_a_loss_that_is_not_finite_names_step_and_documents_before_anything_moves(trainer, tmp_path):
    documents = rows(6, 0)
    batches = [padded(documents[:3]), padded(documents[3:], first=3)]
    model, watch = TinyModel(), Recorder()
    kept: list[dict[str, Any]] = []

    class Breaking(Recorder):
        def step(self, step: int, total: int, figures: Any) -> None:
            super().step(step, total, figures)
            if step == 2:
                kept.append(values(model))
                model.mix[0].weight.register_hook(lambda gradient: gradient * math.inf)

    watch = Breaking()
    with pytest.raises(UserError) as caught:
        fit(
            trainer,
            job(
                model,
                lambda r, w: Parts(batches),
                steps=9,
                watch=watch,
                checkpoints=on_disk(tmp_path),
                optimizer="muon",
            ),
        )
    assert caught.value.code == "not-finite-loss"
    assert "step 3" in caught.value.message
    assert "document-0, document-1, document-2" in caught.value.message
    assert len(watch.steps) == 2
    now = values(model)
    assert all(torch.equal(kept[0][name], now[name]) for name in now if name != "seen")
    assert not list(tmp_path.glob("*/manifest.json")), "a checkpoint was saved after the loss broke"
    assert all(parameter.grad is None for parameter in model.parameters()), "gradients were left behind"


@trainers
def test_the_micro_batch_with_the_broken_loss_is_the_one_that_is_named(trainer):
    class Poisoned(TinyModel):
        def hidden(self, ids: torch.Tensor, **more: Any) -> torch.Tensor:
            return super().hidden(ids, **more) + (math.nan if len(ids) == 2 else 0.0)

    documents = rows(6, 0)
    batches = [padded(documents[:4]), padded(documents[4:], first=4)]
    with pytest.raises(UserError, match="document-4, document-5") as caught:
        fit(trainer, job(Poisoned(), lambda r, w: Parts(batches), accumulate=2))
    assert caught.value.details["documents"] == ["document-4", "document-5"]


@trainers
def test_data_that_end_too_early_are_named_with_the_step(trainer):
    stream = lambda rank, world: Stream(rows(6, 0), 3, limit=3)  # noqa: E731
    with pytest.raises(UserError, match="the data ended at step 4 of 9") as caught:
        fit(trainer, job(TinyModel(), stream, steps=9))
    assert caught.value.code == "data-ended"


@trainers
def test_a_step_in_which_nothing_is_to_be_learnt_is_survived(trainer):
    batch = padded(rows(3, 0))
    empty = Batch(batch.ids, torch.full_like(batch.targets, IGNORE), valid=batch.valid)
    watch = Recorder()
    fit(trainer, job(TinyModel(), lambda r, w: Parts([batch, empty]), steps=2, watch=watch))
    assert watch.trace()[1] == 0.0
