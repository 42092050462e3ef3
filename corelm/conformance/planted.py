"""Planted bugs: the kit is only worth what it catches."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

from corelm.conformance.framework import PartUnderTest, Property
from corelm.conformance.running import Outcome, hold
from corelm.registration import active

_planted: list[PlantedBug] = []
_references: dict[str, list[type[Any]]] = {}


@dataclass(frozen=True)
class PlantedBug:
    """A part that is wrong in one way.

    Attributes:
        kind: of the part.
        name: of the bug, e.g. ``eps_outside_the_root``.
        part: the wrong part.
        what: the mistake in words; with the thread where it was found, if it was found in the wild.
        caught_by: name of the property that is meant to catch it.
    """

    kind: str
    name: str
    part: type[Any]
    what: str
    caught_by: str

    def caught(self, *, seed: int = 0) -> Outcome:
        """Hold the wrong part to the property that is meant for it."""
        return hold(
            PartUnderTest(self.kind, f"bug:{self.name}", given=self.part), self.property, seed=seed, shrink=False
        )

    @property
    def property(self) -> Property:
        """The property that is meant to catch it.

        Raises:
            KeyError: there is none of this name.
        """
        from corelm.conformance.selection import properties

        return {prop.name: prop for prop in properties(self.kind)}[self.caught_by]


def plant(caught_by: str, what: str = "") -> Any:
    """Make the decorated wrong part a planted bug, named after its class; its docstring says what is wrong."""

    def register(part: type[Any]) -> type[Any]:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in part.__name__).lstrip("_")
        _planted.append(PlantedBug(part.kind, name, part, what or (part.__doc__ or "").strip(), caught_by))
        return part

    return register


def reference(part: type[Any]) -> type[Any]:
    """Make the decorated part one that is right: bugs are planted into it, and it must pass everything."""
    _references.setdefault(part.kind, []).append(part)
    return part


def _load() -> None:
    package = importlib.import_module("corelm.conformance.bugs")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"corelm.conformance.bugs.{module.name}")


def planted_bugs(kind: str | None = None) -> list[PlantedBug]:
    """The kit's planted bugs and those that plugins bring, of one kind or all."""
    _load()
    brought = [bug for bugs in active().manager.hook.corelm_planted_bugs() for bug in bugs]
    return [bug for bug in [*_planted, *brought] if kind in (None, bug.kind)]


def references(kind: str | None = None) -> list[PartUnderTest]:
    """The small right parts that bugs were planted into."""
    _load()
    return [
        PartUnderTest(part.kind, f"reference:{part.__name__}", given=part)
        for owner, parts in _references.items()
        if kind in (None, owner)
        for part in parts
    ]
