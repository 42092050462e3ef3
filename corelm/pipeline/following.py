"""What all processes of a run but the first one do: wait, and take part in the stages that they are called to."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from corelm.kinds.stage import Artifact
from corelm.kinds.tracker import StageSummary
from corelm.pipeline.checkpoints import StageCheckpoints
from corelm.pipeline.plan import Unit, context_of, units_of, work_folder
from corelm.pipeline.processes import RunGroup
from corelm.pipeline.watch import Stop
from corelm.recipe.reader import Recipe


class Calls:
    """The leader's words to the others, one after the other."""

    def __init__(self, group: RunGroup) -> None:
        self.group = group
        self._numbers = itertools.count()

    def stage(self, unit: Unit, made: Mapping[str, Artifact]) -> None:
        """Call the others to a stage."""
        known = {name: [artifact.type, artifact.digest] for name, artifact in made.items()}
        self.group.announce(f"call/{next(self._numbers)}", {"stage": unit.name, "made": known})

    def end(self, summaries: list[StageSummary]) -> None:
        """Tell them that the run is over, and what it did."""
        told = [asdict(summary) for summary in summaries]
        self.group.announce(f"call/{next(self._numbers)}", {"stage": None, "summaries": told})


def follow(recipe: Recipe, folder: Path, group: RunGroup, stop: Stop) -> list[StageSummary]:
    """Take part until the leader says that the run is over; what it did, as the leader tells it."""
    units = {unit.name: unit for unit in units_of(recipe)}
    for number in itertools.count():
        call = group.hear(f"call/{number}", stop.asked)
        if call["stage"] is None:
            return [StageSummary(**told) for told in call["summaries"]]
        made = {name: Artifact(type_, name, folder / name, digest) for name, (type_, digest) in call["made"].items()}
        _take_part(recipe, folder, units[call["stage"]], made, group, stop)
    raise AssertionError("unreachable")


def _take_part(
    recipe: Recipe, folder: Path, unit: Unit, made: Mapping[str, Artifact], group: RunGroup, stop: Stop
) -> None:
    """Run a stage along with the leader; what this process writes is thrown away."""
    checkpoints = StageCheckpoints(work_folder(folder, unit) / "checkpoints", recipe.config.checkpoint_seconds)
    with tempfile.TemporaryDirectory() as thrown_away:
        context = context_of(
            unit, recipe, folder, Path(thrown_away), watch=_Silent(stop), checkpoints=checkpoints, group=group
        )
        unit.run(context, made)


class _Silent:
    """The leader reports; whether to stop is everyone's to ask."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""
        return self._stop.asked()
