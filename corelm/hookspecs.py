"""What a plugin may hook: bring components and kinds, read a recipe, watch a run, plant bugs in the kit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from corelm.registration import Registrar

hookspec = pluggy.HookspecMarker("corelm")
hookimpl = pluggy.HookimplMarker("corelm")


@hookspec
def corelm_register(registry: Registrar) -> None:
    """Register parts with ``registry.add(…)`` and kinds with ``registry.add_kind(…)``.

    Called once, when components are first looked up. The module must import neither torch nor the parts.
    """


@hookspec
def corelm_recipe_read(recipe: dict[str, Any]) -> list[str]:
    """Look at a resolved recipe (plain data, a copy) and return reasons to refuse it, if any."""
    return []


@hookspec
def corelm_run_event(event: str, fields: dict[str, Any]) -> None:
    """Watch a run: ``event`` is one of ``run-start, stage-start, step, checkpoint, stage-end, run-end``."""


@hookspec
def corelm_planted_bugs() -> list[Any]:
    """Return further ``corelm.conformance.PlantedBug`` for the kit's own tests."""
    return []
