"""Both trainers: what a step is, what a resumed run is, what is left alone."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_models import (
    VOCABULARY,
    NoCheckpoints,
    Parts,
    Recorder,
    Stream,
    TinyModel,
    fit,
    job,
    on_disk,
    padded,
    rows,
    values,
)

from corelm.errors import Interrupted, UserError
from corelm.kinds import IGNORE, Batch, Spec, declared

TRAINERS = ["plain", "accelerate"]
trainers = pytest.mark.parametrize("trainer", TRAINERS)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(float((one[n] - other[n]).abs().max()) for n in one if n != "seen")


def streams_of(documents: list[list[int]], size: int = 3, seed: int = 0) -> Any:
    return lambda rank, world: Stream(documents, size, seed, rank, world)


@trainers
@given(cuts=st.sets(st.integers(1, 5), max_size=5), clip=st.sampled_from([None, 0.05, 1.0]), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_any_partition_of_a_batch_into_micro_batches_gives_the_same_parameters(trainer, cuts, clip, seed):
    documents = rows(6, seed)
    bounds = [0, *sorted(cuts), 6]
    parts = [padded(documents[a:b]) for a, b in itertools.pairwise(bounds)]
    whole, cut = TinyModel(seed), TinyModel(seed)
    fit(trainer, job(whole, lambda r, w: Parts([padded(documents)]), steps=2), clip=clip)
    fit(trainer, job(cut, lambda r, w: Parts(parts), steps=2, accumulate=len(parts)), clip=clip)
    assert distance(values(whole), values(cut)) < 1e-10


@trainers
@given(extra=st.integers(1, 5))
@settings(max_examples=5, deadline=None)
def test_columns_of_padding_change_nothing(trainer, extra):
    documents = rows(4, 1)
    tight, wide = TinyModel(), TinyModel()
    fit(trainer, job(tight, lambda r, w: Parts([padded(documents)]), steps=2))
    fit(trainer, job(wide, lambda r, w: Parts([padded(documents, extra=extra)]), steps=2))
    assert distance(values(tight), values(wide)) < 1e-12


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
def test_with_the_same_seed_losses_repeat_and_with_another_they_differ(trainer):
    def losses(seed: int) -> list[float]:
        watch = Recorder()
        fit(trainer, job(TinyModel(0, dropout=0.3), streams_of(rows(6, 0)), seed=seed, watch=watch))
        return watch.trace()

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


@trainers
def test_each_micro_batch_and_each_step_has_its_own_dropout(trainer):
    same_batch = padded(rows(3, 0))
    watch = Recorder()
    still = {"use": "adamw", "learning_rate": 0.0}
    fit(
        trainer,
        job(TinyModel(0, dropout=0.5), lambda r, w: Parts([same_batch]), optimizer=still, watch=watch, steps=3),
    )
    assert len(set(watch.trace())) == 3
    twice = Recorder()
    fit(
        trainer,
        job(TinyModel(0, dropout=0.5), lambda r, w: Parts([same_batch]), optimizer=still, watch=twice, accumulate=2),
    )
    assert twice.trace()[0] != watch.trace()[0], "the second micro-batch repeats the first one's dropout"


@trainers
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_at_learning_rate_zero_no_parameter_moves(trainer, optimizer):
    model = TinyModel()
    before = values(model)
    fit(trainer, job(model, streams_of(rows(6, 0)), optimizer={"use": optimizer, "learning_rate": 0.0}))
    after = values(model)
    assert all(torch.equal(before[name], after[name]) for name in before if name != "seen")


@trainers
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_trainable_parameter_moves_and_the_others_keep_their_bits(trainer, optimizer):
    model = TinyModel()
    before = values(model)
    model.embedding.table.requires_grad_(False)
    chosen = job(
        model, streams_of(rows(9, 0)), optimizer=optimizer, steps=2, trainable=lambda name: "mix.0" not in name
    )
    fit(trainer, chosen)
    after = values(model)
    moved = {name for name, _, _ in declared(model) if not torch.equal(before[name], after[name])}
    assert moved == {"mix.1.weight", "gain", "head.map.weight"}
    assert [p.requires_grad for _, p, _ in declared(model)].count(False) == 1, "requires_grad is not as it was"


@trainers
def test_nothing_to_train_is_refused(trainer):
    with pytest.raises(UserError, match="no parameter is left to train") as caught:
        fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), trainable=lambda name: False))
    assert caught.value.code == "nothing-to-train"


@trainers
@given(accumulate=st.sampled_from([1, 2, 4]), scheduled=st.sampled_from(["cosine", "linear", "warmup-stable-decay"]))
@settings(max_examples=6, deadline=None)
def test_the_learning_rate_follows_the_schedule_by_optimizer_steps(trainer, accumulate, scheduled):
    watch, steps = Recorder(), 10
    schedule = {"use": scheduled, "warmup": 3}
    fit(
        trainer,
        job(TinyModel(), streams_of(rows(6, 0)), steps=steps, accumulate=accumulate, schedule=schedule, watch=watch),
    )
    built = Spec.read("schedule", schedule).build()
    assert watch.trace("learning_rate") == [1e-2 * built.factor(step, steps) for step in range(steps)]


class Peeking:
    """Stands in for an optimizer's spec: keeps what the optimizer would have seen, and moves nothing."""

    learning_rate = 1.0

    def __init__(self) -> None:
        self.seen: list[list[torch.Tensor]] = []

    def build(self, parameters: Any) -> Peeking:
        self.parameters = parameters
        return self

    def step(self, scale: float) -> None:
        self.seen.append([p.grad.clone() for _, p, _ in self.parameters])

    def zero_grad(self) -> None:
        for _, parameter, _ in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {}


def gradients(model: TinyModel, batch: Batch) -> torch.Tensor:
    """Of the mean loss over the batch's targets, straight from autograd."""
    terms = Spec.read("objective", "completion-only").build().evaluate(model.train(), batch)
    found = torch.autograd.grad(terms.total / (batch.targets != IGNORE).sum(), [p for _, p, _ in declared(model)])
    return torch.cat([g.flatten() for g in found])


@trainers
@given(clip=st.sampled_from([1e-3, 0.1, 100.0]), seed=st.integers(0, 20))
@settings(max_examples=8, deadline=None)
def test_a_step_sees_the_batchs_own_gradient_clipped_once_as_a_whole(trainer, clip, seed):
    documents, peeking, watch = rows(6, seed), Peeking(), Recorder()
    training = job(
        TinyModel(seed),
        lambda r, w: Parts(
            [padded(documents[:2]), padded(documents[2:]), padded(documents[3:]), padded(documents[:3])]
        ),
        accumulate=2,
        steps=2,
        watch=watch,
    )
    training.optimizer = peeking  # type: ignore[assignment]
    fit(trainer, training, clip=clip)
    wholes = [padded(documents), padded(documents[3:] + documents[:3])]
    for seen, figures, whole in zip(peeking.seen, watch.steps, wholes, strict=True):
        found, expected = torch.cat([g.flatten() for g in seen]), gradients(TinyModel(seed), whole)
        assert abs(figures["gradient_norm"] - float(expected.norm())) < 1e-9
        assert float(found.norm()) <= clip * (1 + 1e-5)
        assert float(torch.cosine_similarity(found, expected, dim=0)) > 1 - 1e-9
        if float(expected.norm()) < clip:
            assert float((found - expected).abs().max()) < 1e-12


@trainers
def test_random_states_training_modes_and_gradients_of_the_caller_are_as_they_were(trainer):
    model = TinyModel(dropout=0.5)
    model.eval()
    model.mix.train()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    precision = torch.get_float32_matmul_precision()
    fit(trainer, job(model, streams_of(rows(6, 0))))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_float32_matmul_precision() == precision
    assert not model.training and model.mix.training and model.mix[0].training and not model.head.training
    assert all(parameter.grad is None for parameter in model.parameters())


@trainers
def test_it_trains_in_training_mode(trainer):
    model = TinyModel().eval()
    fit(trainer, job(model, streams_of(rows(6, 0)), steps=3))
    assert float(model.seen) == 3


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
def test_stopping_saves_a_checkpoint_and_says_how_to_go_on(trainer, tmp_path):
    watch = Recorder(stop_after=2)
    with pytest.raises(Interrupted, match="stopped after step 2 of 9") as caught:
        fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), steps=9, watch=watch, checkpoints=on_disk(tmp_path)))
    assert "Run it again" in caught.value.remedy
    assert on_disk(tmp_path).latest() == 2


@trainers
def test_data_that_end_too_early_are_named_with_the_step(trainer):
    stream = lambda rank, world: Stream(rows(6, 0), 3, limit=3)  # noqa: E731
    with pytest.raises(UserError, match="the data ended at step 4 of 9") as caught:
        fit(trainer, job(TinyModel(), stream, steps=9))
    assert caught.value.code == "data-ended"


@trainers
def test_a_checkpoint_of_another_model_is_refused(trainer, tmp_path):
    fit(trainer, job(TinyModel(), streams_of(rows(6, 0)), checkpoints=on_disk(tmp_path)))
    with pytest.raises(UserError, match=r"another model: head\.map\.weight"):
        fit(trainer, job(TinyModel(outputs=9), streams_of(rows(6, 0)), checkpoints=on_disk(tmp_path), steps=9))


@trainers
def test_a_step_in_which_nothing_is_to_be_learnt_is_survived(trainer):
    batch = padded(rows(3, 0))
    empty = Batch(batch.ids, torch.full_like(batch.targets, IGNORE), valid=batch.valid)
    watch = Recorder()
    fit(trainer, job(TinyModel(), lambda r, w: Parts([batch, empty]), steps=2, watch=watch))
    assert watch.trace()[1] == 0.0


@trainers
@pytest.mark.parametrize("seed", range(2))
def test_noise_cannot_be_compressed(trainer, seed):
    """A label that leaks (no shift, a look ahead) would push the loss below ln V."""

    class Noise(Parts):
        def __next__(self) -> Batch:
            self.next += 1
            draw = torch.Generator().manual_seed(1000 * seed + self.next)
            ids = torch.randint(VOCABULARY, (16, 12), generator=draw)
            return Batch(ids, torch.cat([ids[:, 1:], torch.full((16, 1), IGNORE)], dim=1))

    watch = Recorder()
    fit(trainer, job(TinyModel(seed), lambda r, w: Noise([]), steps=160, watch=watch, objective="next-token"))
    assert sum(watch.trace()[100:]) / 60 >= math.log(VOCABULARY) - 0.05


@trainers
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_counting_is_learnt(trainer, optimizer):
    """x_{t+1} = x_t + 1 mod V."""
    ids = (torch.arange(12)[None] + torch.arange(VOCABULARY)[:, None]) % VOCABULARY
    batch = Batch(ids, torch.cat([ids[:, 1:], torch.full((len(ids), 1), IGNORE)], dim=1))
    model = TinyModel()
    result = fit(
        trainer,
        job(
            model,
            lambda r, w: Parts([batch]),
            steps=160,
            objective="next-token",
            optimizer={"use": optimizer, "learning_rate": 3e-2},
        ),
    )
    assert result.figures["loss"] < 0.2
    model.eval()
    guessed = model.head(model.hidden(ids)).argmax(-1)
    assert torch.equal(guessed, (ids + 1) % VOCABULARY)


@trainers
def test_figures_are_means_over_terms_and_tokens_are_counted(trainer):
    documents, watch = rows(6, 0), Recorder()
    model = TinyModel()
    whole = padded(documents)
    terms = Spec.read("objective", "completion-only").build().evaluate(model, whole)
    wanted = float(terms.total) / int((whole.targets != IGNORE).sum())
    result = fit(
        trainer,
        job(
            model,
            lambda r, w: Parts([padded(documents[:1]), padded(documents[1:])]),
            accumulate=2,
            watch=watch,
            steps=1,
        ),
    )
    assert abs(watch.trace()[0] - wanted) < 1e-12
    assert abs(result.figures["loss"] - wanted) < 1e-12
    assert result.figures["tokens"] == sum(map(len, documents))
    assert {"loss", "learning_rate", "tokens", "tokens_per_second", "gradient_norm"} <= watch.steps[0].keys()


def test_both_trainers_do_the_same():
    one, other, first, second = TinyModel(dropout=0.1), TinyModel(dropout=0.1), Recorder(), Recorder()
    for trainer, model, watch in (("plain", one, first), ("accelerate", other, second)):
        fit(trainer, job(model, streams_of(rows(12, 0)), accumulate=2, steps=5, watch=watch, seed=3))
    assert same(values(one), values(other))
    assert first.trace() == second.trace()


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_low_precision_keeps_weights_and_moments_in_float32_and_stays_close(precision):
    batch = padded(rows(6, 0))
    models = {}
    for chosen in ("fp32", precision):
        models[chosen] = TinyModel().float()
        fit("plain", job(models[chosen], lambda r, w: Parts([batch]), steps=3), precision=chosen)
    assert all(tensor.dtype == torch.float32 for tensor in values(models[precision]).values())
    assert 0 <= distance(values(models["fp32"]), values(models[precision])) < 0.05


def test_bf16_really_rounds():
    batch = padded(rows(6, 0))
    watches = {}
    for chosen in ("fp32", "bf16"):
        watches[chosen] = Recorder()
        fit(
            "plain",
            job(TinyModel().float(), lambda r, w: Parts([batch]), steps=1, watch=watches[chosen]),
            precision=chosen,
        )
    assert 0 < abs(watches["fp32"].trace()[0] - watches["bf16"].trace()[0]) < 0.05
