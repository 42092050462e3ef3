"""Holding a part to a property: examples, their shrinking, and what came out."""

from __future__ import annotations

import contextlib
import os
import random
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, Property
from corelm.errors import UserError

Status = Literal["passed", "failed", "expected-failed", "not-applicable", "blocked"]

PROFILES: Final = {"dev": 0.4, "ci": 1.0, "deep": 10.0}
"""Factor on every property's number of examples; chosen by the environment variable CORELM_KIT."""

SHRINK_SECONDS: Final = 8.0
"""A failing example is made smaller for so long."""

DRAW_SECONDS: Final = 20.0
"""Without a single example that fits together after so long, drawing is given up."""


class _EnoughError(BaseException):
    """Stops hypothesis: the time for drawing or shrinking is over."""


@dataclass
class Outcome:
    """What came out of holding one part to one property.

    Attributes:
        part: label of the part.
        prop: the property.
        status: how it ended.
        reason: of a failure, an excuse, or what it was blocked by.
        story: label and value of each choice of the smallest failing example.
        ran: examples in which the law was really tested.
        seconds: time it took.
        reproduce: one line that shows it again.
    """

    part: str
    prop: Property
    status: Status
    reason: str = ""
    story: list[tuple[str, str]] = field(default_factory=list)
    ran: int = 0
    first_failure: int = 0
    seconds: float = 0.0
    reproduce: str = ""


@dataclass
class _Trail:
    """What happened while examples ran."""

    ran: int = 0
    calls: int = 0
    excuses: list[str] = field(default_factory=list)
    failure: BaseException | None = None
    notes: list[tuple[str, Any]] = field(default_factory=list)
    failed_at: float = 0.0
    failed_example: int = 0
    rejected: str = ""


def hold(
    part: PartUnderTest, prop: Property, *, examples: int | None = None, seed: int = 0, shrink: bool = True
) -> Outcome:
    """Hold a part to a property; expected failures of the part are taken into account.

    Args:
        part, prop: what and to what.
        examples: how many; None: the property's own number.
        seed: of the draws.
        shrink: whether a failing example is made as small as it goes.
    """
    started = time.perf_counter()
    outcome = _hold(part, prop, examples, seed, shrink)
    expected = getattr(part.given or (part.cls if prop.name != "loads" else None), "expected_failures", {})
    if prop.name in expected and outcome.status == "failed":
        outcome.status, outcome.reason = "expected-failed", str(expected[prop.name])
    elif prop.name in expected and outcome.status == "passed":
        outcome.status = "failed"
        outcome.reason = (
            f"it is declared to fail ({expected[prop.name]}) but passes: take it out of expected_failures of "
            f"{part.cls.__name__}"
        )
    outcome.seconds = time.perf_counter() - started
    return outcome


def _hold(part: PartUnderTest, prop: Property, examples: int | None, seed: int, shrink: bool) -> Outcome:
    wanted = examples or max(1, round(prop.examples * PROFILES[os.environ.get("CORELM_KIT", "ci")]))
    outcome = Outcome(part.label, prop, "passed")
    outcome.reproduce = f"corelm verify {part.label} --property {prop.name} --seed {seed} --examples {wanted}"
    excuse = excused(part, prop)
    if excuse:
        outcome.status, outcome.reason = "not-applicable", excuse
        return outcome
    trail = _Trail()
    with contextlib.suppress(UserError):
        _ = part.cls  # importing other people's libraries may touch random states; that is nobody's fault here
    problem = _examples(part, prop, wanted, seed, trail, shrink)
    outcome.ran, outcome.first_failure = trail.ran, trail.failed_example
    if trail.failure is not None:
        outcome.status, outcome.reason = "failed", _explain(trail.failure)
        outcome.story = [(label, _short(value)) for label, value in trail.notes]
    elif trail.ran == 0 and trail.excuses:
        outcome.status, outcome.reason = "not-applicable", trail.excuses[0]
    elif problem or trail.ran == 0:
        why = trail.rejected or "the choices drawn never fitted together"
        outcome.status, outcome.reason = "failed", problem or f"no example could be drawn: {why}"
    return outcome


def excused(part: PartUnderTest, prop: Property) -> str | None:
    """Why the property says nothing about the part's class, or None."""
    try:
        return prop.excuse(part)
    except UserError:
        return None  # the part can't be loaded; `loads` says so and the rest is blocked


def _examples(part: PartUnderTest, prop: Property, wanted: int, seed: int, trail: _Trail, shrink: bool) -> str:
    """Run the examples; returns a problem of the drawing itself, if there is one."""
    began = time.perf_counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=wanted,
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])],
        verbosity=hypothesis.Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @hypothesis.given(st.data())
    def body(data: Any) -> None:
        now = time.perf_counter()
        if trail.failure is not None and now - trail.failed_at > SHRINK_SECONDS:
            raise _EnoughError
        if not trail.ran and not trail.excuses and trail.failure is None and now - began > DRAW_SECONDS:
            raise _EnoughError
        draw = Draw(data)
        trail.calls += 1
        try:
            with _pure_surroundings():
                prop.check(part, draw)
            trail.ran += 1
        except NotApplicable as excuse:
            trail.excuses.append(str(excuse))
        except hypothesis.errors.UnsatisfiedAssumption:
            trail.rejected = next((str(v) for k, v in reversed(draw.notes) if k == "rejected"), trail.rejected)
            raise
        except Exception as error:
            if trail.failure is None:
                trail.failed_at, trail.failed_example = time.perf_counter(), trail.ran + 1
            trail.failure, trail.notes = error, draw.notes
            raise AssertionError(str(error)) from error

    try:
        body()
    except hypothesis.errors.Unsatisfiable:
        return "" if trail.excuses else f"no example could be drawn: {trail.rejected or 'nothing fitted together'}"
    except (AssertionError, hypothesis.errors.HypothesisException, BaseExceptionGroup, _EnoughError):
        if trail.failure is None:
            return f"no example could be drawn: {trail.rejected}" if trail.rejected else traceback.format_exc(limit=2)
    return ""


@contextlib.contextmanager
def _pure_surroundings() -> Iterator[None]:
    """Seed torch, and insist that nobody touches the global random states."""
    outside = torch.get_rng_state()
    torch.manual_seed(0)
    before = _states()
    try:
        yield
        after = _states()
        touched = [
            name
            for name, same in (
                ("random", before[0] == after[0]),
                ("numpy.random", before[1] == after[1]),
                ("torch", torch.equal(before[2], after[2])),
            )
            if not same
        ]
        assert not touched, (
            f"the global random state of {', '.join(touched)} was changed; use a generator of your own"
        )
    finally:
        torch.set_rng_state(outside)


def _states() -> tuple[Any, bytes, torch.Tensor]:
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), torch.get_rng_state()


def _explain(error: BaseException) -> str:
    if isinstance(error, AssertionError):
        return str(error) or "assertion failed"
    frames = traceback.extract_tb(error.__traceback__)
    where = frames[-1] if frames else None
    place = f" at {where.filename}:{where.lineno}" if where else ""
    return f"it raised {type(error).__name__}: {error}{place}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]}…"


@cache
def standing(part: PartUnderTest) -> str:
    """Name of the first property that everything else waits for and that the part fails; '' if none."""
    from corelm.conformance.selection import properties

    for prop in properties(part.kind):
        if prop.first and hold(part, prop).status == "failed":
            return prop.name
    return ""


def enforce(part: PartUnderTest, prop: Property) -> None:
    """Hold a part to a property inside a pytest test.

    Raises:
        AssertionError: it fails; skips where it is not applicable, marks expected failures as such.
    """
    import pytest

    blocker = "" if prop.first else standing(part)
    if blocker:
        pytest.skip(f"blocked by {part.label}::{blocker}")
    outcome = hold(part, prop)
    if outcome.status == "not-applicable":
        pytest.skip(f"not applicable: {outcome.reason}")
    if outcome.status == "expected-failed":
        pytest.xfail(outcome.reason)
    if outcome.status == "failed":
        from corelm.conformance.report import explain

        raise AssertionError(explain(outcome))
