"""The order of an epoch: a permutation that is computed where it is needed and held nowhere."""

from __future__ import annotations

import hashlib
import math
from typing import Final

import numpy as np
from jaxtyping import Int

from corelm_data.splitmix import mixed

ROUNDS: Final = 8
"""Twice the four after which a Feistel network with random functions passes for a random permutation
(Luby & Rackoff, 1988, doi:10.1137/0217022): here the halves are small and the functions cheap."""


class Shuffle:
    """A permutation of ``0 … count − 1`` drawn from a key; memory doesn't grow with ``count``.

    A Feistel network over the grid ``side × side`` with ``side = ⌈√count⌉``: a number is written as two digits, and
    round by round one digit is moved, modulo ``side``, by a keyed function of the other. Each round can be undone, so
    the whole is a bijection of the grid. Where it leads out of ``0 … count − 1`` it is applied again until it leads
    back in, which keeps it a bijection of these ("cycle walking": Black & Rogaway, 2002,
    doi:10.1007/3-540-45760-7_9). The grid has at most 2 √count + 1 numbers too many, so this is rare.

    Args:
        count: how many numbers there are.
        key: seed, epoch, and whatever else decides the order.
    """

    def __init__(self, count: int, *key: int | str) -> None:
        self.count = count
        self._side = np.uint64(max(1, math.isqrt(count - 1) + 1 if count else 1))
        digest = hashlib.shake_256(" ".join(map(str, key)).encode()).digest(8 * ROUNDS)
        # Read as little-endian numbers on any machine, so that an order is the same everywhere.
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def at(self, places: Int[np.ndarray, " places"]) -> Int[np.ndarray, " places"]:
        """Which numbers come at these places."""
        found = self._once(np.asarray(places, dtype=np.uint64))
        while len(outside := np.flatnonzero(found >= self.count)):
            found[outside] = self._once(found[outside])
        return found.astype(np.int64)

    def span(self, start: int, stop: int) -> Int[np.ndarray, " places"]:
        """Which numbers come at the places ``start … stop − 1``, or up to the last."""
        return self.at(np.arange(start, min(stop, self.count)))

    def _once(self, numbers: np.ndarray) -> np.ndarray:
        """One walk through the grid; numbers are uint64, ``(numbers,)``."""
        left, right = np.divmod(numbers, self._side)
        for key in self._keys:
            left, right = right, (left + mixed(right + key) % self._side) % self._side
        return left * self._side + right
