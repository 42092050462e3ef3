"""Schedules: pure functions of step and total."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelm.kinds import Schedule, Spec

ALL = ["constant", "cosine", "linear", "warmup-stable-decay"]
totals, finals = st.integers(1, 400), st.sampled_from([0.0, 0.1, 1.0])
warmups = st.one_of(st.integers(0, 500), st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))


def build(use: str, **options: object) -> Schedule:
    if use == "constant":
        options.pop("final", None)
    return Spec.read("schedule", {"use": use, **options}).build()


def steps_of(warmup: float, total: int) -> int:
    return min(total, warmup if isinstance(warmup, int) else round(warmup * total))


@pytest.mark.parametrize("use", ALL)
@given(total=totals, warmup=warmups, final=finals, seed=st.integers(0, 9))
def test_factors_lie_in_the_unit_interval_and_depend_on_nothing_but_step_and_total(use, total, warmup, final, seed):
    schedule = build(use, warmup=warmup, final=final)
    factors = [schedule.factor(step, total) for step in range(2 * total + 2)]
    assert all(math.isfinite(f) and 0 <= f <= 1 for f in factors)
    order = random.Random(seed).sample(range(2 * total + 2), 2 * total + 2)
    assert all(schedule.factor(step, total) == factors[step] for step in order)
    assert all(schedule.factor(total + later, total) == factors[total] for later in (1, 7, 10**6))


@pytest.mark.parametrize("use", ALL)
@given(total=totals, warmup=warmups)
def test_the_warm_up_rises_in_equal_steps_to_one(use, total, warmup):
    schedule, warm = build(use, warmup=warmup), steps_of(warmup, total)
    whole = warmup if isinstance(warmup, int) else warm
    for step in range(warm):
        assert schedule.factor(step, total) == (step + 1) / whole
    if warm < total:
        assert schedule.factor(warm, total) == 1


@pytest.mark.parametrize("use", ALL)
@given(total=totals, warmup=warmups, final=finals)
def test_after_the_warm_up_it_falls_to_the_final_value_and_never_rises(use, total, warmup, final):
    schedule, warm = build(use, warmup=warmup, final=final), steps_of(warmup, total)
    after = [schedule.factor(step, total) for step in range(warm, total + 3)]
    assert all(b <= a + 1e-15 for a, b in zip(after, after[1:], strict=False))
    assert abs(schedule.factor(total, total) - (1.0 if use == "constant" else final)) < 1e-15


@pytest.mark.parametrize(("use", "steepest"), [("cosine", math.pi / 2), ("linear", 1.0)])
@given(total=totals, final=finals, data=st.data())
def test_no_step_is_steeper_than_the_curve_and_it_is_symmetric_with_the_exact_area(use, steepest, total, final, data):
    warm = data.draw(st.integers(0, total - 1))
    schedule, length = build(use, warmup=warm, final=final), total - warm
    path = [schedule.factor(step, total) for step in range(warm, total + 1)]
    assert all(abs(a - b) <= steepest / length * (1 - final) + 1e-12 for a, b in zip(path, path[1:], strict=False))
    assert all(abs(a + b - 1 - final) < 1e-12 for a, b in zip(path, reversed(path), strict=True))
    assert abs(sum(path) - (final * (length + 1) + (1 - final) * (length + 1) / 2)) < 1e-9


@pytest.mark.parametrize("use", ALL)
@given(total=totals, final=finals, stretch=st.integers(2, 5), data=st.data())
def test_time_can_be_stretched(use, total, final, stretch, data):
    warm = data.draw(st.integers(0, total))
    more = {"decay": 10} if use == "warmup-stable-decay" else {}
    longer = {"decay": 10 * stretch} if more else {}
    short = build(use, warmup=warm, final=final, **more)
    long = build(use, warmup=warm * stretch, final=final, **longer)
    for step in range(total + 2):
        # A warm-up step ends where the next one begins: (t + 1) / W.
        stretched = stretch * (step + 1) - 1 if step < warm else stretch * step
        assert abs(short.factor(step, total) - long.factor(stretched, total * stretch)) < 1e-12


@given(total=st.integers(4, 400), final=finals)
def test_a_quarter_of_the_way_the_shapes_differ(total, final):
    step = total // 4
    cosine = final + (1 - final) * (1 + math.cos(math.pi * step / total)) / 2
    assert abs(build("cosine", warmup=0, final=final).factor(step, total) - cosine) < 1e-12
    assert abs(build("linear", warmup=0, final=final).factor(step, total) - (1 - (1 - final) * step / total)) < 1e-12


@given(total=totals, decay=st.integers(0, 400), warm=st.integers(0, 50), shape=st.sampled_from(["linear", "1-sqrt"]))
def test_between_warm_up_and_decay_the_factor_is_exactly_one(total, decay, warm, shape):
    schedule = build("warmup-stable-decay", warmup=warm, decay=decay, shape=shape)
    start = total - min(decay, total)
    assert all(schedule.factor(step, total) == 1 for step in range(warm, min(start + 1, total)))
    if total > max(warm, start) + 1:
        step = max(warm, start) + 1
        share = (step - max(warm, start)) / (total - max(warm, start))
        left = 1 - share if shape == "linear" else 1 - math.sqrt(share)
        assert abs(schedule.factor(step, total) - left) < 1e-12


@pytest.mark.parametrize("use", ALL)
@given(total=totals, longer=st.integers(0, 400), warmup=warmups, decay=st.sampled_from([0, 10, 300, 0.2, 1.0]))
def test_up_to_the_stable_step_a_longer_training_has_the_same_path(use, total, longer, warmup, decay):
    schedule = build(use, warmup=warmup, **({"decay": decay} if use == "warmup-stable-decay" else {}))
    until = schedule.stable_until(total)
    assert 0 <= until <= total
    for step in range(until):
        assert schedule.factor(step, total) == schedule.factor(step, total + longer)


def test_trainings_that_can_be_prolonged_say_from_where():
    assert build("warmup-stable-decay", warmup=10, decay=0.2).stable_until(100) == 80
    assert build("constant", warmup=10).stable_until(100) == 100
    assert build("cosine", warmup=10).stable_until(100) == 10
    for use in ALL:
        assert build(use, warmup=0.1).stable_until(100) == 0


def test_whole_numbers_are_steps_and_fractions_are_shares():
    assert build("cosine", warmup=4).factor(0, 100) == 0.25
    assert build("cosine", warmup=0.1).factor(0, 100) == 0.1
    assert build("cosine", warmup="1k").factor(0, 100) == 0.001
