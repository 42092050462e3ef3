"""Rules of the form "this figure of a text lies between two bounds"."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from corelm_data.one_by_one import Verdict, dropped


class Measure(NamedTuple):
    """A figure of a text with the bounds that a rule sets; both bounds are allowed values."""

    reason: str
    value: float
    least: float = -math.inf
    most: float = math.inf


def first_outside(measures: Iterable[Measure]) -> Verdict | None:
    """The verdict of the first rule that is broken; the rules after it are not computed."""
    for reason, value, least, most in measures:
        if value < least:
            return dropped(reason, f"{_shown(value)}, at least {_shown(least)}")
        if value > most:
            return dropped(reason, f"{_shown(value)}, at most {_shown(most)}")
    return None


def _shown(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"
