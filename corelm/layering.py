"""The one rule by which maps are laid over each other: in ``extends``, in block patterns, in overrides."""

from __future__ import annotations

from typing import Any


def overlay(below: Any, above: Any) -> Any:
    """Lay ``above`` over ``below``.

    Maps merge deep while their ``use`` is equal (or ``above`` names none); a different ``use`` replaces the whole
    map; everything else, lists included, replaces. ``None`` replaces as well: whether that is allowed is the
    schema's business. Neither argument is changed.
    """
    below, above = _as_part(below, above), _as_part(above, below)
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if "use" in above and below.get("use") != above["use"]:
        return dict(above)
    merged = dict(below)
    for key, value in above.items():
        merged[key] = overlay(below[key], value) if key in below else value
    return merged


def _as_part(value: Any, other: Any) -> Any:
    """Read a bare name as ``{use: name}`` where it meets a part written as a map."""
    return {"use": value} if isinstance(value, str) and isinstance(other, dict) and "use" in other else value
