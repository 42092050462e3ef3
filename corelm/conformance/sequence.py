"""All properties of one part, in order: what depends on a failed one is blocked by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from corelm.conformance.bench import load_kind
from corelm.conformance.framework import PartUnderTest, Property, known
from corelm.conformance.limits import SECONDS, Stopped, limited
from corelm.conformance.running import Outcome, hold, pending

PATIENCE: Final = 2
"""A part that has hung in so many properties is not tried any further."""


@dataclass(frozen=True)
class Options:
    """How parts are held to their properties.

    Attributes:
        names: only these properties and those that all others wait for; none means all.
        examples: per property; None: each property's own number.
        seed: of the draws.
        seconds: an example that computes for longer is taken for one that never ends.
    """

    names: tuple[str, ...] = ()
    examples: int | None = None
    seed: int = 0
    seconds: float = SECONDS

    def mean(self, prop: Property) -> bool:
        """Whether the property is among those that were asked for."""
        return prop.first or not self.names or prop.name in self.names


def properties(kind: str) -> list[Property]:
    """All properties of a kind: those that all others wait for, then each behind those that it needs."""
    try:
        with limited():
            load_kind(kind)
    except Stopped:
        raise
    except BaseException:
        pass  # a stranger's kind whose properties can't be imported; `kind_has_properties` says so of its parts
    found = sorted([*known("*"), *known(kind)], key=lambda prop: not prop.first)
    ordered: dict[Property, None] = {}

    def put(prop: Property, waiting: tuple[Property, ...] = ()) -> None:
        for other in found:
            if other.name in prop.needs and other not in waiting:
                put(other, (*waiting, prop))
        ordered.setdefault(prop)

    for prop in found:
        put(prop)
    return list(ordered)


def blocker(prop: Property, done: Mapping[str, Outcome]) -> str:
    """What stands in the way of holding a part to ``prop``; '' for nothing.

    Args:
        prop: the property.
        done: outcomes of the same part so far, by the property's name.
    """
    if prop.name in done:
        return ""
    for outcome in done.values():
        if outcome.prop.first and outcome.status == "failed":
            return outcome.prop.name
    for name in prop.needs:
        if name in done and done[name].status == "failed":
            return name
        if name in done and done[name].status == "blocked":
            return done[name].reason.removeprefix("blocked by ")
    hung = [outcome.prop.name for outcome in done.values() if outcome.endless]
    return f"{' and '.join(hung)}, which did not end" if len(hung) >= PATIENCE else ""


def held(
    part: PartUnderTest,
    options: Options,
    before: Iterable[Outcome] = (),
    begin: Callable[[Property], None] = lambda prop: None,
) -> Iterator[Outcome]:
    """Hold a part to all of its properties, one after the other.

    Args:
        part: the part.
        options: which properties, and how.
        before: outcomes that are known already; they are not given again.
        begin: told each property before it is tried.
    """
    done = {outcome.prop.name: outcome for outcome in before}
    for prop in properties(part.kind):
        if not options.mean(prop) or prop.name in done:
            continue
        why = blocker(prop, done)
        if why:
            outcome = pending(part, prop, "blocked", f"blocked by {why}")
        else:
            begin(prop)
            outcome = hold(part, prop, examples=options.examples, seed=options.seed, seconds=options.seconds)
        done[prop.name] = outcome
        yield outcome


@cache
def kept(part: PartUnderTest, prop: Property) -> Outcome:
    """The outcome of a property, by itself; remembered, because others may need it."""
    return hold(part, prop)


def outcome_of(part: PartUnderTest, prop: Property) -> Outcome:
    """The outcome of a property with what it waits for and needs, for those who ask in any order (tests)."""
    done: dict[str, Outcome] = {}
    for other in properties(part.kind):
        if other.name != prop.name and (other.first or other.name in _needed(part.kind, prop)):
            why = blocker(other, done)
            done[other.name] = pending(part, other, "blocked", f"blocked by {why}") if why else kept(part, other)
        if other.name == prop.name:
            break
    why = blocker(prop, done)
    return pending(part, prop, "blocked", f"blocked by {why}") if why else kept(part, prop)


def _needed(kind: str, prop: Property) -> set[str]:
    """Names of what a property needs, and of what that needs."""
    found = set(prop.needs)
    for other in reversed(properties(kind)):
        found |= set(other.needs) if other.name in found else set()
    return found


def standing(part: PartUnderTest) -> str:
    """Name of the first property that everything else waits for and that the part fails; '' if none."""
    firsts = (prop for prop in properties(part.kind) if prop.first)
    return next((prop.name for prop in firsts if kept(part, prop).status == "failed"), "")
