"""How much longer than in training a recipe wants its sequences."""

from __future__ import annotations


def stretch(context: int, original_context: int) -> float:
    """The model's context over the one that it was trained to read, at least one."""
    return max(1.0, context / original_context)
