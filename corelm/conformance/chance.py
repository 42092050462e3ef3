"""Draws from a seed, where no hypothesis is needed."""

from __future__ import annotations

import random
from typing import Any, NoReturn, TypeVar

from hypothesis import strategies as st

from corelm.conformance.framework import Draw
from corelm.conformance.strategies import Undrawable

T = TypeVar("T")


class Chance(Draw):
    """Draws without a limit and without shrinking, thousands in a second.

    For laws of the sort "at least once in many tries", and for what tells its own story where it fails. What can't be
    drawn raises :class:`~corelm.conformance.strategies.Undrawable`: there is always another attempt.
    """

    def __init__(self, *seed: object) -> None:
        super().__init__(None)
        self._random = random.Random("/".join(map(str, seed)))

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, high)

    def quiet(self, strategy: st.SearchStrategy[T]) -> T:
        """Strategies need hypothesis."""
        raise Undrawable

    def note(self, label: str, value: Any) -> None:
        """Nothing is noted."""

    def reject(self) -> NoReturn:
        """On to the next attempt."""
        raise Undrawable
