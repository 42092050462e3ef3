"""The conformance kit: what every part of a kind must satisfy, stated so that a test can hold it.

``properties(kind)`` lists them, ``run("attention/gqa")`` holds a part to them, ``suite("acme")`` gives a plugin's own
tests one pytest test per (part, property). Nothing here needs pytest; hypothesis draws the examples.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelm.conformance.framework import Draw as Draw
    from corelm.conformance.framework import PartUnderTest as PartUnderTest
    from corelm.conformance.framework import Property as Property
    from corelm.conformance.framework import property_of as property_of
    from corelm.conformance.planted import PlantedBug as PlantedBug
    from corelm.conformance.report import Report as Report
    from corelm.conformance.selection import properties as properties
    from corelm.conformance.selection import run as run
    from corelm.conformance.selection import suite as suite

_WHERE = {
    "Draw": "framework",
    "PartUnderTest": "framework",
    "Property": "framework",
    "property_of": "framework",
    "PlantedBug": "planted",
    "Report": "report",
    "properties": "selection",
    "run": "selection",
    "suite": "selection",
}

__all__ = ["Draw", "PartUnderTest", "PlantedBug", "Property", "Report", "properties", "property_of", "run", "suite"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'corelm.conformance' has no attribute {name!r}")
    return getattr(importlib.import_module(f"corelm.conformance.{_WHERE[name]}"), name)
