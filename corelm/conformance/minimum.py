"""How much must have been tested, so that what was left out can't turn a run green."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from corelm.conformance.bench import module_of

ATTRIBUTE: Final = "MINIMUM"
"""Name of the number in a kind's module: so many of its properties must pass, whatever the part; 1 where there is none."""


@cache
def minimum(kind: str) -> int:
    """How many of the kind's own properties each of its parts must pass."""
    try:
        return int(getattr(module_of(kind), ATTRIBUTE, 1))
    except Exception:
        return 1  # the kind's properties can't be imported; `kind_has_properties` says so


def shortfall(part: str, kind: str, own: Mapping[str, str]) -> str:
    """Too little in words; '' where it is enough.

    Args:
        part: label of the part.
        kind: of the part.
        own: status of the kind's own properties, by name; all of them.
    """
    passed = sum(status == "passed" for status in own.values())
    if passed >= minimum(kind):
        return ""
    others = [
        f"{status.replace('-', ' ')}: {', '.join(name for name, found in own.items() if found == status)}"
        for status in ("not-applicable", "expected-failed", "blocked")
        if status in own.values()
    ]
    return (
        f"{part}: only {passed} of the {len(own)} properties of kind {kind} passed, at least {minimum(kind)} must; "
        + ("; ".join(others) or "none was run")
    )
