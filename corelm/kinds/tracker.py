"""Kind ``tracker``: watches a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from corelm.kinds.component import Component


@dataclass
class StageSummary:
    """One row of the table of stages.

    Attributes:
        name, use: the stage and its part.
        status: ``done``, ``up to date``, ``resumed``, ``failed``, ``stopped``.
        reason: why it was (re)done, or how it failed.
        seconds: what it took in this run.
        figures: what is worth showing.
        folder: where its results are.
        notes: sentences for the reader.
    """

    name: str
    use: str
    status: str = ""
    reason: str = ""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    notes: list[str] = field(default_factory=list)


class Tracker(Component):
    """Is told what happens; every method does nothing by default.

    Built as ``Part(config)``; then ``open(folder, recipe)``.

    Contract:
        * It never slows a run (under 1 % of a step) and never breaks it: what it raises is reported once and the
          tracker is dropped.
        * It only reads what it is given.
        * What it says of a stage is what it was told: name, part, status. What ``recorded`` gives back are the figures
          of the steps, each step once, as they were at the end: a stage that goes on from a checkpoint replaces what a
          run that was cut off had told beyond it.
    """

    kind: ClassVar[str] = "tracker"

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def recorded(cls, folder: Path) -> dict[str, dict[int, dict[str, float | None]]] | None:
        """Figures by stage and step that were kept in a run's folder (null: no finite number); None: it keeps none."""
        return None

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        """A run starts in ``folder`` with these stages to come."""

    def stage_start(self, stage: StageSummary, resumed_from: int = 0) -> None:
        """A stage starts, perhaps from a checkpoint at this step."""

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        """A long job is at ``step`` of ``total``; ``figures`` such as loss, tokens_per_second."""

    def note(self, stage: StageSummary | None, message: str) -> None:
        """Something worth telling."""

    def checkpoint(self, stage: StageSummary, step: int) -> None:
        """A checkpoint was saved."""

    def stage_end(self, stage: StageSummary) -> None:
        """A stage ended; ``status``, ``seconds`` and ``figures`` are set."""

    def close(self, stages: list[StageSummary]) -> None:
        """The run ended, well or not."""
