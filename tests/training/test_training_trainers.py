"""Both trainers: what a step is, what it moves and what it leaves alone."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_models import (
    VOCABULARY,
    Parts,
    Recorder,
    TinyModel,
    fit,
    job,
    padded,
    rows,
    same,
    streams_of,
    trainers,
    values,
)

from corelm.kinds import IGNORE, Batch, Spec, declared


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(float((one[n] - other[n]).abs().max()) for n in one if n != "seen")


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
