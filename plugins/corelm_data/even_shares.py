"""Turns in given shares, as evenly as can be."""

from __future__ import annotations

from collections.abc import Mapping


class EvenShares:
    """Whose turn it is, so that after every turn each has had its share to less than one turn.

    The chairman assignment problem (Tijdeman, 1980, doi:10.1016/0012-365X(80)90269-1): of k that share turns, those whose
    due ``n · p_i − had_i`` is at least 1/(2k − 2) may be next, and of these the one is that would be first to fall behind
    by ``1 − 1/(2k − 2)``. No due is ever larger than that.

    Args:
        shares: of each, by name; need not add up to one.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        total = sum(shares.values())
        self._names = list(shares)
        self._shares = [share / total for share in shares.values()]
        self._due = [0.0] * len(shares)
        self._least = 1 / (2 * len(shares) - 2) if len(shares) > 1 else 0.0

    def next(self) -> str:
        """Whose turn it is; asking changes nothing."""
        return self._names[self._choice()]

    def taken(self, name: str) -> None:
        """The turn was taken."""
        for index, share in enumerate(self._shares):
            self._due[index] += share
        self._due[self._names.index(name)] -= 1.0

    def _choice(self) -> int:
        best, soonest = 0, float("inf")
        for index, share in enumerate(self._shares):
            due = self._due[index] + share
            # Sums in floating point: one that is due by definition must not miss it by rounding.
            if due >= self._least - 1e-9:
                left = (1 - self._least - due) / share
                if left < soonest:
                    best, soonest = index, left
        return best
