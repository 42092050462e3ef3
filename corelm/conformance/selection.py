"""Which parts are held to which properties, and the ways to ask for it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from corelm.conformance import importing
from corelm.conformance.framework import PartUnderTest, Property
from corelm.conformance.limits import SECONDS
from corelm.conformance.minimum import shortfall
from corelm.conformance.report import Report, explain, told
from corelm.conformance.running import Outcome, excused
from corelm.conformance.sequence import Options, held, outcome_of, properties
from corelm.errors import UserError
from corelm.registration import Failure, active

__all__ = ["cases", "enforce", "parts", "properties", "run", "suite"]


def parts(wanted: Sequence[str] = (), plugins: Sequence[str] = ()) -> list[PartUnderTest]:
    """The installed parts that are meant: ``kind``, ``kind/name``, ``distribution:name``; none means all.

    Raises:
        UserError: something that isn't installed is meant.
    """
    found: list[PartUnderTest] = []
    for text in wanted or [""]:
        kind, _, name = text.partition("/")
        if name:
            record = active().find(kind, name)
            found.append(PartUnderTest(kind, record.name, record))
            continue
        chosen = [r for r in active().parts() if text in ("", r.kind, r.qualified)]
        if not chosen and text not in active().kinds:
            raise _unknown(text)
        found += [PartUnderTest(r.kind, r.name, r) for r in chosen]
    plugins = [normal(plugin) for plugin in plugins]
    if plugins:
        known = {r.distribution for r in active().parts()} | {f.distribution for f in active().failures}
        for plugin in sorted(set(plugins) - known):
            raise UserError(
                f"no part of a distribution called {plugin!r} is installed{_nearest(plugin, sorted(known))}",
                remedy=f"installed: {', '.join(sorted(known))}; `corelm plugins` tells more",
                code="unknown-plugin",
            )
        found = [part for part in found if part.record and part.record.distribution in plugins]
    return list(dict.fromkeys(found))


def normal(distribution: str) -> str:
    """A distribution's name as package indexes write it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _unknown(text: str) -> UserError:
    """Nothing is called like that; of a plain name, the full one is offered."""
    full = sorted({f"{r.kind}/{r.name}" for r in active().parts() if text in (r.name, r.distribution)})
    near = f"; did you mean {' or '.join(full[:3])}?" if full else _nearest(text, sorted(active().kinds))
    if text in {record.distribution for record in active().parts()}:
        near = f"; for a distribution's parts write --plugin {text}"
    return UserError(
        f"nothing installed is called {text!r}{near}",
        remedy=f"Write KIND, KIND/NAME or DISTRIBUTION:NAME; kinds: {', '.join(sorted(active().kinds))}",
        code="unknown-part",
    )


def _nearest(name: str, among: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, among, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def failed_plugins(wanted: Sequence[str] = (), plugins: Sequence[str] = ()) -> list[Failure]:
    """Plugins that could not be loaded, of those that are meant; none where single kinds or parts are."""
    names = {normal(plugin) for plugin in plugins}
    return [] if wanted else [failure for failure in active().failures if not names or failure.distribution in names]


def cases(
    wanted: Sequence[str] = (), plugins: Sequence[str] = (), names: Sequence[str] = ()
) -> Iterator[tuple[PartUnderTest, Property]]:
    """(part, property) of everything that is meant, without those that say nothing about the part's class."""
    for part in parts(wanted, plugins):
        for prop in properties(part.kind):
            if names and prop.name not in names:
                continue
            if not excused(part, prop):
                yield part, prop


def run(
    *wanted: str,
    plugins: Sequence[str] = (),
    names: Sequence[str] = (),
    examples: int | None = None,
    seed: int = 0,
    seconds: float = SECONDS,
    jobs: int = 0,
    watch: Callable[[Outcome], None] = lambda outcome: None,
    finished: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> Report:
    """Hold parts to their properties.

    Args:
        wanted: ``attention``, ``attention/gqa``, ``acme:x``; nothing means everything installed.
        plugins: only parts of these distributions.
        names: only properties of these names (those that all others wait for are always run).
        examples: per property; None: each property's own number.
        seed: of the draws.
        seconds: an example that computes for longer is taken for one that never ends.
        jobs: number of processes; 0: this one, in which what hangs outside of Python can't be ended.
        watch: told each outcome as it comes.
        finished: told the outcomes of each part when there are all.

    Raises:
        UserError: something that isn't installed is meant, or there is no such property.
    """
    chosen = parts(wanted, plugins)
    offered = sorted({prop.name for part in chosen for prop in properties(part.kind)})
    for name in names:
        if chosen and name not in offered:
            raise UserError(
                f"no property is called {name!r}{_nearest(name, offered)}",
                remedy=f"properties: {', '.join(offered)}" if len(chosen) == 1 else "",
                code="unknown-property",
            )
    options = Options(tuple(names), examples, seed, seconds)
    report = Report(plugins=failed_plugins(wanted, plugins))
    if jobs and chosen:
        from corelm.conformance.workers import run_parts

        report.outcomes = run_parts(chosen, options, jobs=jobs, watch=watch, finished=finished)
        return report
    _ = [part.label for part in chosen]  # before parts that hang are left out
    importing.load_all(active().parts(), seconds)
    with importing.usable():
        for part in chosen:
            outcomes = []
            for outcome in held(part, options):
                outcomes.append(outcome)
                watch(outcome)
            finished(outcomes)
            report.outcomes += outcomes
    return report


def enforce(part: PartUnderTest, prop: Property, record: Callable[[str, object], None] | None = None) -> None:
    """Hold a part to a property inside a pytest test.

    Args:
        part, prop: what and to what.
        record: pytest's ``record_property``, through which the run's counts are kept.

    Raises:
        AssertionError: it fails; skips where it is not applicable, marks expected failures as such.
    """
    import pytest

    outcome = outcome_of(part, prop)
    if record:
        record("corelm", tally(outcome))
    if outcome.status == "blocked":
        pytest.skip(f"{part.label}::{prop.name} is {outcome.reason}")
    if outcome.status == "not-applicable":
        pytest.skip(f"not applicable: {outcome.reason}")
    if outcome.status == "expected-failed":
        pytest.xfail(outcome.reason)
    if outcome.status == "failed":
        raise AssertionError(explain(outcome))


def tally(outcome: Outcome) -> dict[str, Any]:
    """What the end of a pytest run needs to know of an outcome: plain data that goes from process to process."""
    return {"part": outcome.part, "kind": outcome.kind, "property": outcome.prop.name, "status": outcome.status}


def shortfalls(tallies: Iterable[Mapping[str, str]]) -> list[str]:
    """Parts of which a pytest run has tested too little, in words; those are left out that it was not to test whole."""
    by_part: dict[tuple[str, str], dict[str, str]] = {}
    for tally in tallies:
        by_part.setdefault((tally["kind"], tally["part"]), {})[tally["property"]] = tally["status"]
    found = []
    for (kind, label), statuses in by_part.items():
        record = active().find(kind, label.partition("/")[2])
        part = PartUnderTest(kind, record.name, record)
        own = {
            prop.name: "not-applicable" if excused(part, prop) else statuses.get(prop.name, "left out")
            for prop in properties(kind)
            if prop.kind != "*"
        }
        if "left out" not in own.values() and "failed" not in statuses.values():
            found.append(shortfall(label, kind, own))
    return [text for text in found if text]


def suite(*plugins: str) -> Callable[..., None]:
    """A test for a plugin's own tests: ``test_conformance = suite("acme-norms")``, one case per part and property."""
    import pytest

    chosen = list(cases(plugins=plugins))
    for failure in failed_plugins(plugins=plugins):
        raise UserError(told(failure), code="plugin-failed")

    @pytest.mark.parametrize(("part", "prop"), [pytest.param(p, q, id=f"{p.label}::{q.name}") for p, q in chosen])
    def test_conformance(part: PartUnderTest, prop: Property, record_property: Callable[[str, object], None]) -> None:
        enforce(part, prop, record_property)

    return test_conformance
