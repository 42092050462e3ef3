"""Which parts are held to which properties, and the ways to ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from corelm.conformance.bench import load_kind
from corelm.conformance.framework import PartUnderTest, Property, known
from corelm.conformance.report import Report
from corelm.conformance.running import Outcome, enforce, excused, hold
from corelm.errors import UserError
from corelm.registration import active


def properties(kind: str) -> list[Property]:
    """All properties of a kind: those of every kind, then its own; those that all others wait for come first."""
    load_kind(kind)
    return sorted([*known("*"), *known(kind)], key=lambda prop: not prop.first)


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
        chosen = [r for r in active().parts() if _meant(text, r)]
        if not chosen and text not in active().kinds:
            raise UserError(
                f"nothing installed is called {text!r}",
                remedy=f"Write KIND, KIND/NAME or DISTRIBUTION:NAME; kinds: {', '.join(sorted(active().kinds))}",
                code="unknown-part",
            )
        found += [PartUnderTest(r.kind, r.name, r) for r in chosen]
    if plugins:
        known_plugins = {r.distribution for r in active().parts()}
        for plugin in set(plugins) - known_plugins:
            raise UserError(
                f"no part of a distribution called {plugin!r} is installed",
                remedy=f"installed: {', '.join(sorted(known_plugins))}; failed ones are listed by `corelm plugins`",
                code="unknown-plugin",
            )
        found = [part for part in found if part.record and part.record.distribution in plugins]
    return list(dict.fromkeys(found))


def _meant(text: str, record: Any) -> bool:
    return text in ("", record.kind, record.qualified)


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
    watch: Callable[[Outcome], None] = lambda outcome: None,
) -> Report:
    """Hold parts to their properties.

    Args:
        wanted: ``attention``, ``attention/gqa``, ``acme:x``; nothing means everything installed.
        plugins: only parts of these distributions.
        names: only properties of these names (those that all others wait for are always run).
        examples: per property; None: each property's own number.
        seed: of the draws.
        watch: told each outcome as it comes.
    """
    report = Report()
    chosen = parts(wanted, plugins)
    for name in set(names) - {prop.name for part in chosen for prop in properties(part.kind)}:
        raise UserError(f"no property is called {name!r}", code="unknown-property")
    for part in chosen:
        blocker = ""
        for prop in properties(part.kind):
            if names and prop.name not in names and not prop.first:
                continue
            if blocker:
                outcome = Outcome(part.label, prop, "blocked", f"blocked by {blocker}")
            else:
                outcome = hold(part, prop, examples=examples, seed=seed)
            if prop.first and outcome.status == "failed":
                blocker = blocker or prop.name
            report.outcomes.append(outcome)
            watch(outcome)
    return report


def suite(*plugins: str) -> Callable[..., None]:
    """A test for a plugin's own tests: ``test_conformance = suite("acme-norms")``, one case per part and property."""
    import pytest

    chosen = list(cases(plugins=plugins))

    @pytest.mark.parametrize(("part", "prop"), [pytest.param(p, q, id=f"{p.label}::{q.name}") for p, q in chosen])
    def test_conformance(part: PartUnderTest, prop: Property) -> None:
        enforce(part, prop)

    return test_conformance
