"""Properties of schedules: pure functions from step and total to a factor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, get_args

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of

MINIMUM = 5
"""So many of these properties must say something about every part of the kind, and hold."""


class ScheduleBench(Bench):
    """Short and long trainings."""

    kind = "schedule"
    varies = False

    def inputs(self, subject: Subject, draw: Draw) -> dict[str, Any]:
        """A total."""
        return {"total": draw.choice("total", [40, 1, 2, 7, 400])}

    def call(self, subject: Subject, inputs: dict[str, Any]) -> Any:
        """The whole path."""
        return [subject.part.factor(step, inputs["total"]) for step in range(inputs["total"] + 2)]


def _path(part: PartUnderTest, draw: Draw) -> tuple[Any, int, list[float]]:
    subject = part.bench.subject(part, draw)
    inputs = part.bench.inputs(subject, draw)
    return subject.part, inputs["total"], part.bench.call(subject, inputs)


@property_of(
    "schedule",
    statement="Every factor is finite and in [0, 1], for all steps and totals from one on, far beyond the end too.",
    formula="0 ≤ f(t) ≤ 1, ∀ N ≥ 1, W ∈ {0, 1, N, …}, t ≤ 2N + 1",
    catches="a division by zero at total 1, factors above one",
    tolerance="one rounding above one",
    examples=40,
)
def in_unit_interval(part: PartUnderTest, draw: Draw) -> None:
    """All steps, and far out."""
    schedule, total, path = _path(part, draw)
    for step, value in [*enumerate(path), (2 * total + 1, schedule.factor(2 * total + 1, total))]:
        assert isinstance(value, float) and math.isfinite(value), f"factor({step}, {total}) = {value!r}"
        assert 0 <= value <= 1 + 1e-12, f"factor({step}, {total}) = {value}"


@property_of(
    "schedule",
    statement="From step total on the final value holds for ever.",
    formula="f(N + j) = f(N), j ∈ {1, 7, 10⁶}",
    catches="a cosine that rises again",
    seen="UniRL#223",
    examples=30,
)
def stays_at_the_end(part: PartUnderTest, draw: Draw) -> None:
    """1, 7 and a million steps later."""
    schedule, total, _ = _path(part, draw)
    final = schedule.factor(total, total)
    for later in (1, 7, 10**6):
        value = schedule.factor(total + later, total)
        assert abs(value - final) < 1e-12, f"factor({total + later}, {total}) = {value}, at the end it was {final}"


@property_of(
    "schedule",
    statement="It rises (warm-up), then never again.",
    formula="f(0) ≤ … ≤ f(t*) ≥ … ≥ f(N)",
    catches="a rebound, a stair in the wrong direction",
    examples=30,
)
def one_peak(part: PartUnderTest, draw: Draw) -> None:
    """Unimodal."""
    _, _total, path = _path(part, draw)
    peak = path.index(max(path))
    rising, falling = path[: peak + 1], path[peak:]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(rising)), f"falls before its peak at {peak}"
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(falling)), f"rises after its peak at {peak}"


@property_of(
    "schedule",
    statement="The order of questions doesn't matter.",
    formula="f(t) is f(t), asked in any order",
    catches="an internal counter",
    tier="bit",
    examples=10,
)
def a_pure_function(part: PartUnderTest, draw: Draw) -> None:
    """Backwards."""
    schedule, total, path = _path(part, draw)
    backwards = [schedule.factor(step, total) for step in reversed(range(total + 2))]
    assert backwards[::-1] == path, "asked in another order, it gives other factors"


@property_of(
    "schedule",
    statement="There are no jumps: where the training and all its phases are eight times as long, steps are small.",
    formula="max |f₈(t + 1) − f₈(t)| ≤ 0.4 max |f₁(t + 1) − f₁(t)|",
    catches="a staircase by epochs, a warm-up that begins over",
    tolerance="a Lipschitz curve gives ⅛, 1 − √x at its beginning 1/√8 = 0.354",
    examples=20,
)
def no_jumps(part: PartUnderTest, draw: Draw) -> None:
    """1 000 and 8 000 steps; a continuous curve is as fine as it is long, 1 − √x at its beginning still √8 times finer."""
    config = part.bench.subject(part, draw, warmup=50, decay=200).config

    def largest(times: int) -> float:
        lengths = {name: value * times for name, value in (("warmup", 50), ("decay", 200))}
        known = {name: value for name, value in lengths.items() if name in part.cls.Config.model_fields}
        schedule = part.cls(type(config).model_validate({**config.model_dump(), **known}))
        path = [schedule.factor(step, 1_000 * times) for step in range(1_000 * times + 1)]
        return max(abs(a - b) for a, b in itertools.pairwise(path))

    coarse, fine = largest(1), largest(8)
    assert fine <= 0.4 * coarse or fine <= 1 / 50, f"largest step {coarse:.4f} of 1000, {fine:.4f} of 8000"


@property_of(
    "schedule",
    statement="A warm-up of W steps rises in equal steps and reaches the full rate at W.",
    formula="f(t) = t/W or (t + 1)/W for t < W, f(W) = 1",
    catches="off by one in the warm-up",
    examples=30,
    excuse=lambda part: None if "warmup" in part.cls.Config.model_fields else "it has no warm-up",
)
def warmup_is_linear(part: PartUnderTest, draw: Draw) -> None:
    """t/W or (t + 1)/W, and one at W."""
    warm = draw.choice("warmup", [0, 1, 4, 10])
    schedule = part.bench.subject(part, draw, warmup=warm).part
    total = 200
    path = [schedule.factor(step, total) for step in range(warm + 1)]
    assert abs(path[-1] - 1) < 1e-9, f"factor({warm}) = {path[-1]} after a warm-up of {warm}"
    if warm:
        low = [step / warm for step in range(warm)]
        high = [(step + 1) / warm for step in range(warm)]
        near = min(max(abs(a - b) for a, b in zip(path, line, strict=False)) for line in (low, high))
        assert near < 1e-9, f"the warm-up is {path}, neither t/{warm} nor (t+1)/{warm}"


@property_of(
    "schedule",
    statement="The final value is the one that the config names.",
    formula="f(N) = final",
    catches="N − 1 in place of N, a quarter of a cosine",
    examples=20,
    excuse=lambda part: None if "final" in part.cls.Config.model_fields else "it names no final value",
)
def ends_where_it_says(part: PartUnderTest, draw: Draw) -> None:
    """At the end exactly, where the warm-up is all of the training, too."""
    final = draw.choice("final", [0.0, 0.1, 0.5])
    schedule = part.bench.subject(part, draw, final=final, warmup=2).part
    total = draw.choice("total", [10, 50, 400, 2])
    value = schedule.factor(total, total)
    assert abs(value - final) < 1e-9, f"factor({total}, {total}) = {value}, final is {final}"


def _law(part: PartUnderTest) -> str:
    return str(getattr(part.cls, "law", part.name))


FALLS: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "linear": lambda share: 1 - share,
    "1-sqrt": lambda share: 1 - math.sqrt(share),
}
"""What is left at a share of the way down, by the name of the curve."""


@property_of(
    "schedule",
    statement="The shape is that of its name: a cosine is ½ + ½·cos, a line is a line, at every step of the way down.",
    formula="f(s + t) = final + (1 − final) · h(t/n), h(x) = (1 + cos πx)/2, 1 − x or 1 − √x, for t = 0 … n",
    catches="a line for a cosine, N in place of N − W, one step too many or too few, a quarter of a cosine",
    tolerance="float64; two ways of writing one function",
    examples=12,
    excuse=lambda part: None if _law(part) in (*FALLS, "warmup-stable-decay") else "its name promises no formula",
)
def shape_of_its_name(part: PartUnderTest, draw: Draw) -> None:
    """The way down is all that is left after the warm-up, or the decay at the end."""
    law, final = _law(part), draw.choice("final", [0.0, 0.2])
    warm, way = draw.choice("warmup", [0, 8]), draw.choice("way down", [400, 1, 2, 7, 50])
    pins: dict[str, Any] = {"final": final, "warmup": warm}
    start = warm
    if law == "warmup-stable-decay":
        start = warm + draw.choice("plateau", [5, 60])
        shapes = part.cls.Config.model_fields.get("shape")
        law = "linear" if shapes is None else draw.choice("shape", list(get_args(shapes.annotation)))
        pins |= {"decay": way, "shape": law}
    schedule = part.bench.subject(part, draw, **pins).part
    for step in range(way + 1):
        value, wanted = schedule.factor(start + step, start + way), final + (1 - final) * FALLS[law](step / way)
        assert abs(value - wanted) < 1e-9, f"{value} at {step} of {way} steps down; {law} is {wanted}"


@property_of(
    "schedule",
    statement="After the warm-up time is relative: with everything k times as long, step kt has the factor of step t.",
    formula="f_{kN, kW}(kt) = f_{N, W}(t) for W ≤ t ≤ N",
    catches="N + 1 or N − 1 under the fraction, a constant number of steps that hides in the curve",
    tolerance="float64; a curve of a fraction, which is rounded in two ways",
    examples=15,
)
def time_is_relative(part: PartUnderTest, draw: Draw) -> None:
    """Two and five times as long."""
    config = part.bench.subject(part, draw, warmup=5, decay=20).config
    total = draw.choice("total", [40, 50, 120])

    def stretched(times: int) -> Any:
        lengths = {name: value * times for name, value in (("warmup", 5), ("decay", 20))}
        known = {name: value for name, value in lengths.items() if name in part.cls.Config.model_fields}
        return part.cls(type(config).model_validate({**config.model_dump(), **known}))

    short = stretched(1)
    for times in (2, 5):
        long = stretched(times)
        for step in range(5, total + 1):
            a, b = short.factor(step, total), long.factor(times * step, times * total)
            assert abs(a - b) < 1e-9, f"factor({step}, {total}) = {a}, {times} times as long it is {b}"


@property_of(
    "schedule",
    statement="Up to stable_until(total) the path is the same for every larger total.",
    formula="f_N(t) = f_{N′}(t), ∀ t < stable_until(N), N′ > N",
    catches="a training that can't be prolonged as promised",
    examples=60,
)
def stable_as_promised(part: PartUnderTest, draw: Draw) -> None:
    """Compare with longer trainings."""
    schedule, total, path = _path(part, draw)
    until = schedule.stable_until(total)
    assert 0 <= until <= total, f"stable_until({total}) = {until}"
    if until == 0:
        raise NotApplicable("it promises nothing")
    for longer in (total + 1, 2 * total, 10 * total):
        for step in range(until):
            value = schedule.factor(step, longer)
            assert abs(value - path[step]) < 1e-12, f"factor({step}) is {path[step]} of {total}, {value} of {longer}"


@property_of(
    "schedule",
    statement="stable_until promises no less than is kept: one step beyond it, a longer training takes another path.",
    formula="stable_until(N) + 1 ≥ max {n: factor(t, N) = factor(t, M) for all t < n, M > N}",
    catches="a plateau that is kept from users: a training that could be prolonged, and is refused",
    examples=40,
)
def promises_what_is_kept(part: PartUnderTest, draw: Draw) -> None:
    """Compare with much longer trainings until they part."""
    subject = part.bench.subject(part, draw, final=0.1)
    schedule, total = subject.part, draw.choice("total", [40, 7, 400])
    until = schedule.stable_until(total)
    for step in range(total + 1):
        if any(
            schedule.factor(step, longer) != schedule.factor(step, total) for longer in (total + 1, 10**7 * total)
        ):
            break
    assert until >= step - 1, f"stable_until({total}) = {until}, but up to step {step} nothing depends on the total"


@property_of(
    "schedule",
    statement="Warm-up, plateau and decay: exactly one between them.",
    formula="f(t) = 1 for W ≤ t ≤ N − D",
    catches="a decay that begins early or late",
    examples=15,
    excuse=lambda part: None if "decay" in part.cls.Config.model_fields else "it has no plateau",
)
def plateau_is_flat(part: PartUnderTest, draw: Draw) -> None:
    """One from the end of the warm-up to the beginning of the decay."""
    warm, decay, total = draw.choice("warmup", [0, 5]), draw.choice("decay", [10, 30]), 100
    schedule = part.bench.subject(part, draw, warmup=warm, decay=decay, final=0.1).part
    for step in range(warm, total - decay + 1):
        value = schedule.factor(step, total)
        assert abs(value - 1) < 1e-12, f"factor({step}, {total}) = {value} with warmup {warm} and decay {decay}"
    assert schedule.factor(total - decay // 2, total) < 1, "it doesn't decay"
