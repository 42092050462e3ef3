"""Holding a part to a property: examples, their shrinking, and what came out."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import hypothesis
import torch
from hypothesis import strategies as st

from corelm.conformance import limits
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, Property
from corelm.conformance.limits import SECONDS, Endless, Stopped, limited
from corelm.conformance.surroundings import Misconduct, silent, unchanged
from corelm.errors import UserError
from corelm.registration import RegistrationError

Status = Literal["passed", "failed", "expected-failed", "not-applicable", "blocked"]

PROFILES: Final = {"dev": 0.4, "ci": 1.0, "deep": 10.0}
"""Factor on every property's number of examples; chosen by the environment variable CORELM_KIT."""

SHRINK_SECONDS: Final = 8.0
"""A failing example is made smaller for so long."""

DRAW_SECONDS: Final = 20.0
"""Without a single example that fits together after so long, drawing is given up."""

EXCUSES: Final = 100
"""After so many examples that a law says nothing about, and none that it does, it says nothing about the part."""

THREAD_SECONDS: Final = 1.0
"""Threads that a part has started must have ended so long after its last example."""


_OURS: Final = {os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))}
"""Folders of the kit and of the core, in which no import of a stranger's goes wrong."""


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
        first_failure: number of the first example that failed; 0 for none.
        seconds: time it took.
        reproduce: one line that shows it again.
        kind: of the part.
        origin: distribution and version of the part; '' where nobody registered it.
        conduct: whether it failed not the property but what every example must keep to: to end, to be quiet and so on.
        endless: whether an example didn't end, or ended the process.
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
    kind: str = ""
    origin: str = ""
    conduct: bool = False
    endless: bool = False


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
    part: PartUnderTest,
    prop: Property,
    *,
    examples: int | None = None,
    seed: int = 0,
    shrink: bool = True,
    seconds: float = SECONDS,
) -> Outcome:
    """Hold a part to a property; expected failures of the part are taken into account.

    Whatever the part raises, prints, changes or forgets to end is a failure of the part.

    Args:
        part, prop: what and to what.
        examples: how many; None: the property's own number.
        seed: of the draws.
        shrink: whether a failing example is made as small as it goes.
        seconds: an example that computes for longer is taken for one that never ends.
    """
    started, threads = time.perf_counter(), set(threading.enumerate())
    outcome = _hold(part, prop, examples, seed, shrink, seconds)
    left = _left_running(threads, part) if outcome.status == "passed" else ""
    if left:
        outcome.status, outcome.reason, outcome.conduct = "failed", left, True
    expected = expected_failures(part) if prop.name != "loads" else {}
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


def expected_failures(part: PartUnderTest) -> Mapping[str, str]:
    """Properties that the part says it fails, and why."""
    try:
        found = getattr(part.cls, "expected_failures", {})
    except UserError:
        return {}
    return found if isinstance(found, Mapping) else {}


def pending(part: PartUnderTest, prop: Property, status: Status = "passed", reason: str = "") -> Outcome:
    """An outcome in which nothing has run."""
    return Outcome(part.label, prop, status, reason, kind=part.kind, origin=part.origin)


def command(part: PartUnderTest, prop: Property, examples: int | None, seed: int, seconds: float) -> str:
    """The line that shows an outcome again."""
    line = f"corelm verify {part.label} --property {prop.name} --seed {seed} --examples {wanted(prop, examples)}"
    return line if seconds == SECONDS else f"{line} --timeout {seconds:g}"


def wanted(prop: Property, examples: int | None) -> int:
    """How many examples are drawn."""
    return examples or max(1, round(prop.examples * PROFILES[os.environ.get("CORELM_KIT", "ci")]))


def _hold(
    part: PartUnderTest, prop: Property, examples: int | None, seed: int, shrink: bool, seconds: float
) -> Outcome:
    outcome = pending(part, prop)
    outcome.reproduce = command(part, prop, examples, seed, seconds)
    excuse = excused(part, prop)
    if excuse:
        outcome.status, outcome.reason = "not-applicable", excuse
        return outcome
    trail = _Trail()
    with contextlib.suppress(UserError):
        _ = part.cls  # importing other people's libraries may touch random states; that is nobody's fault here
    problem = _examples(part, prop, wanted(prop, examples), seed, trail, shrink, seconds)
    outcome.ran, outcome.first_failure = trail.ran, trail.failed_example
    if trail.failure is not None:
        outcome.status, outcome.reason = "failed", _explain(trail.failure, part, prop)
        outcome.story = [(label, _short(value)) for label, value in trail.notes]
        outcome.endless = isinstance(trail.failure, Endless)
        outcome.conduct = isinstance(trail.failure, Misconduct) or bool(limits.explain_limits(trail.failure))
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
    except Exception:
        return None  # the part or its kind can't be loaded; `loads` or `kind_has_properties` says so


def _left_running(before: Iterable[threading.Thread], part: PartUnderTest) -> str:
    """The finding that there are threads which weren't there before; libraries' own that end with the process are theirs."""
    patience = time.monotonic() + THREAD_SECONDS
    left = [t for t in threading.enumerate() if t not in before and (not t.daemon or _own(t, part))]
    for thread in left:
        thread.join(max(0.0, patience - time.monotonic()))
    names = sorted(thread.name for thread in left if thread.is_alive())
    return f"it left threads running: {', '.join(names)}; end what you start" if names else ""


def _own(thread: threading.Thread, part: PartUnderTest) -> bool:
    """Whether the code that the thread runs is of the part's own package."""
    module = getattr(getattr(thread, "_target", None), "__module__", None) or type(thread).__module__
    return str(module).partition(".")[0] == part.cls.__module__.partition(".")[0]


def _examples(
    part: PartUnderTest, prop: Property, count: int, seed: int, trail: _Trail, shrink: bool, seconds: float
) -> str:
    """Run the examples; returns a problem of the drawing itself, if there is one."""
    began = time.perf_counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
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
        if not trail.ran and len(trail.excuses) >= EXCUSES and trail.failure is None:
            raise _EnoughError
        _example(part, prop, Draw(data), trail, seconds)

    try:
        body()
    except hypothesis.errors.Unsatisfiable:
        return "" if trail.excuses else f"no example could be drawn: {trail.rejected or 'nothing fitted together'}"
    except (AssertionError, hypothesis.errors.HypothesisException, BaseExceptionGroup, _EnoughError):
        if trail.failure is None and not trail.excuses:
            return f"no example could be drawn: {trail.rejected}" if trail.rejected else traceback.format_exc(limit=2)
    return ""


def _example(part: PartUnderTest, prop: Property, draw: Draw, trail: _Trail, seconds: float) -> None:
    """One example, of which the part may make what it likes."""
    trail.calls += 1
    try:
        with limited(seconds), silent(allowed=may_print(part)), _seeded(), unchanged():
            prop.check(part, draw)
        trail.ran += 1
    except NotApplicable as excuse:
        trail.excuses.append(str(excuse))
    except hypothesis.errors.UnsatisfiedAssumption:
        trail.rejected = next((str(v) for k, v in reversed(draw.notes) if k == "rejected"), trail.rejected)
        raise
    except (hypothesis.errors.StopTest, Stopped):
        raise
    except BaseException as error:
        if trail.failure is None:
            trail.failed_at, trail.failed_example = time.perf_counter(), trail.ran + 1
        trail.failure, trail.notes = error, draw.notes
        if limits.explain_limits(error):
            raise _EnoughError from error  # what hangs or eats memory is not tried again to be made smaller
        raise AssertionError(str(error)) from error


def may_print(part: PartUnderTest) -> bool:
    """Whether to print is what parts of this kind are for."""
    try:
        return bool(part.bench.prints)
    except Exception:
        return False  # the kind's properties can't be imported; `kind_has_properties` says so


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seed torch for the example, and give the caller's random state back."""
    outside = torch.get_rng_state()
    if torch.cuda.is_available():
        torch.manual_seed(0)
    else:  # torch would note for cards that may yet come who asked, which takes longer than many an example
        torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(outside)


def _explain(error: BaseException, part: PartUnderTest, prop: Property) -> str:
    """What went wrong, and where if it went wrong in the part rather than in the law."""
    return "\n".join([_found(error, part, prop), *getattr(error, "__notes__", [])])


def _found(error: BaseException, part: PartUnderTest, prop: Property) -> str:
    if isinstance(error, RegistrationError):
        return f"{error.message}{_import_place(error)}" if error.code == "part-import-failed" else str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != limits.__file__]
    law, own = getattr(getattr(prop.check, "__code__", None), "co_filename", ""), _file(part)
    if isinstance(error, AssertionError) and (not frames or frames[-1].filename != own or own == law):
        return str(error) or (f"not so: {frames[-1].line}" if frames else "assertion failed")
    where = next((f for f in reversed(frames) if f.filename == own), frames[-1] if frames else None)
    place = f" at {where.filename}:{where.lineno}" if where else ""
    name = type(error).__name__
    said = limits.explain_limits(error) or (f"it raised {name}: {error}" if str(error) else f"it raised {name}")
    return f"{said}{place}"


def _import_place(error: RegistrationError) -> str:
    """Where the import of a module failed, if it was in the middle of one."""
    frames = traceback.extract_tb(error.__cause__.__traceback__) if error.__cause__ else []
    inner = [f for f in frames if "importlib" not in f.filename and os.path.dirname(f.filename) not in _OURS]
    return f" at {inner[-1].filename}:{inner[-1].lineno}" if inner else ""


def _file(part: PartUnderTest) -> str:
    """The file that the part is written in."""
    try:
        return str(sys.modules[part.cls.__module__].__file__)
    except (UserError, KeyError, AttributeError):
        return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]}…"
