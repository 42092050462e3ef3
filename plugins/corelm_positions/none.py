"""No positions at all."""

from __future__ import annotations

from corelm.kinds import Position


class NoPosition(Position):
    """Adds nothing: a causal mask alone tells tokens apart (Kazemnejad et al., 2023, arXiv:2305.19466)."""
