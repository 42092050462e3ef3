"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping

SHOWN = 4
"""Figures of a stage that a table has room for."""


def number(name: str, value: float) -> str:
    """A figure, short: counts with k and M, times in minutes, the rest with three or four digits."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if name in ("learning_rate",):
        return f"{value:.1e}"
    if float(value).is_integer() and abs(value) < 10_000:
        return str(int(value))
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if letter == "k" else size
            return f"{value / scale:.3g}{letter}"
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """Seconds as ``4.2 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02} min"


def line(figures: Mapping[str, float], most: int | None = SHOWN) -> str:
    """Figures in one line, the most telling first."""
    names = sorted(figures, key=lambda name: (_rank(name), list(figures).index(name)))
    return ", ".join(f"{name.replace('_', ' ')} {number(name, figures[name])}" for name in names[:most])


def _rank(name: str) -> int:
    telling = ("loss", "bits", "accuracy", "reward", "tokens_per_second", "tokens", "pairs", "records", "parameters")
    for rank, word in enumerate(telling):
        if word in name:
            return rank
    return len(telling) + (10 if name in ("gradient_norm", "learning_rate") else 0)
