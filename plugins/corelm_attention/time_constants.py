"""Initial decays of mixers whose decay is ``exp(−rate · softplus(step))``: a spread of memories from short to long."""

from __future__ import annotations

import math

GOLDEN = (math.sqrt(5) - 1) / 2


def log_rates(heads: int, low: float = 1.0, high: float = 16.0) -> tuple[float, ...]:
    """Logarithms of rates evenly spread between two bounds (Gu & Dao, 2023, arXiv:2312.00752, draw them evenly)."""
    return tuple(math.log(low + (high - low) * (head + 0.5) / heads) for head in range(heads))


def step_biases(heads: int, low: float = 0.001, high: float = 0.1) -> tuple[float, ...]:
    """What softplus maps to steps between two bounds, evenly spread on a logarithmic scale.

    The golden ratio's multiples go up and down, so that steps and rates of the heads are unrelated.
    """
    places = (((head + 0.5) * GOLDEN) % 1.0 for head in range(heads))
    return tuple(_inverse_softplus(low * (high / low) ** place) for place in places)


def _inverse_softplus(y: float) -> float:
    return y + math.log(-math.expm1(-y))
