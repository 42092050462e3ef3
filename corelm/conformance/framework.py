"""What a property is, how examples are drawn for it, and what comes out when a part is held to it."""

from __future__ import annotations

import contextlib
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Final, Literal, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from corelm.errors import UserError
from corelm.registration import Record, active

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError as missing:
    raise UserError(
        "the conformance kit needs hypothesis, which is not installed",
        remedy='pip install "corelm[test]"',
        code="kit-needs-hypothesis",
    ) from missing

Tier = Literal["bit", "f64", "num", "stat", "io"]
"""How exactly a property holds: to the bit, in float64, in low precision against float64, in the mean, on disk."""

Status = Literal["passed", "failed", "expected-failed", "not-applicable", "blocked"]

PROFILES: Final = {"dev": 0.4, "ci": 1.0, "deep": 10.0}
"""Factor on every property's number of examples; chosen by the environment variable CORELM_KIT."""

SHRINK_SECONDS: Final = 8.0
"""A failing example is made smaller for so long."""

DRAW_SECONDS: Final = 20.0
"""Without a single example that fits together after so long, drawing is given up."""

T = TypeVar("T")


class NotApplicable(Exception):  # noqa: N818
    """The property says nothing about this example; raised with the reason."""


class _EnoughError(BaseException):
    """Stops hypothesis: the time for drawing or shrinking is over."""


@dataclass(frozen=True)
class PartUnderTest:
    """One part that properties are held against.

    Attributes:
        kind, name: of the part.
        record: where it was registered; None for parts that are not (planted bugs, parts under construction).
        given: the class itself where there is no record.
    """

    kind: str
    name: str
    record: Record | None = None
    given: type[Any] | None = None

    @property
    def label(self) -> str:
        """``kind/name``, with the distribution where another one has a part of the same name."""
        if self.record and sum(r.name == self.name for r in active().parts(self.kind)) > 1:
            return f"{self.kind}/{self.record.qualified}"
        return f"{self.kind}/{self.name}"

    @cached_property
    def cls(self) -> type[Any]:
        """The part's class."""
        if self.given is not None:
            return self.given
        assert self.record is not None
        return self.record.load()

    @property
    def bench(self) -> Any:
        """How parts of this kind are built and exercised (``corelm.conformance.bench``)."""
        from corelm.conformance.bench import bench_of

        return bench_of(self.kind)


Check = Callable[[PartUnderTest, "Draw"], None]


@dataclass(frozen=True)
class Property:
    """One law that every part of a kind obeys.

    Attributes:
        kind: the kind; ``*`` where the law is shared by all of them.
        name: says what it states, e.g. ``cached_equals_full``.
        statement: the law in words.
        catches: what is likely wrong where it fails.
        tier: how exactly it holds.
        examples: how many are drawn by default.
        check: the law as a function that raises ``AssertionError``.
        excuse: why it says nothing about a part (a sentence), or None where it does.
        first: whether all others wait for it.
    """

    kind: str
    name: str
    statement: str
    catches: str
    tier: Tier
    examples: int
    check: Check
    excuse: Callable[[PartUnderTest], str | None]
    first: bool = False


_known: dict[tuple[str, str], Property] = {}


def property_of(
    kind: str,
    *,
    name: str | None = None,
    statement: str,
    catches: str,
    tier: Tier = "f64",
    examples: int = 20,
    excuse: Callable[[PartUnderTest], str | None] = lambda part: None,
    first: bool = False,
) -> Callable[[Check], Check]:
    """Make the decorated function a property of ``kind`` (``*``: of all kinds)."""

    def register(check: Check) -> Check:
        title = name or str(check.__name__)
        _known[kind, title] = Property(kind, title, statement, catches, tier, examples, check, excuse, first)
        return check

    return register


def known(kind: str) -> list[Property]:
    """The properties registered for a kind so far, those that others wait for first."""
    found = [p for (owner, _), p in _known.items() if owner == kind]
    return sorted(found, key=lambda p: not p.first)


class Draw:
    """Draws the choices of one example and remembers them for the report."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._seeds = 0
        self.notes: list[tuple[str, Any]] = []

    def of(self, label: str, strategy: st.SearchStrategy[T]) -> T:
        """Draw from a hypothesis strategy."""
        value: T = self._data.draw(strategy)
        self.note(label, value)
        return value

    def note(self, label: str, value: Any) -> None:
        """Remember something for the report."""
        self.notes.append((label, value))

    def choice(self, label: str, options: Sequence[T]) -> T:
        """Draw one of the options; simpler ones first."""
        return self.of(label, st.sampled_from(list(options)))

    def integer(self, label: str, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return self.of(label, st.integers(low, high))

    def quiet(self, strategy: st.SearchStrategy[T]) -> T:
        """Draw without a note."""
        drawn: T = self._data.draw(strategy)
        return drawn

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, without a note."""
        return self.quiet(st.sampled_from(options))

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included, without a note."""
        return self.quiet(st.integers(low, high))

    def seed(self) -> int:
        """A seed for tensors, another one each time even in the simplest example; not part of the report's story."""
        self._seeds += 1
        return self.quiet(st.integers(0, 2**31 - 1)) * 1009 + self._seeds

    def generator(self) -> torch.Generator:
        """A random generator seeded by the example."""
        return torch.Generator().manual_seed(self.seed())

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
        """A tensor of normal draws."""
        return torch.randn(shape, generator=self.generator(), dtype=torch.float64).mul_(scale).to(dtype)

    def scale(self) -> float:
        """A magnitude; bugs hide at one."""
        return self.choice("magnitude", [1.0, 1e-3, 1e2])

    def ids(self, batch: int, length: int, vocab: int) -> Tensor:
        """Token ids."""
        return torch.randint(vocab, (batch, length), generator=self.generator())

    def permutation(self, n: int) -> Tensor:
        """An order of n things, not the identity where there is another."""
        order = torch.randperm(n, generator=self.generator())
        return order if n < 2 or not torch.equal(order, torch.arange(n)) else order.flip(0)

    def reject(self) -> NoReturn:
        """Give this example up: its choices don't fit together."""
        hypothesis.reject()


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
    before = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state())  # type: ignore[union-attr, index]
    try:
        yield
        after = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state())  # type: ignore[union-attr, index]
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
