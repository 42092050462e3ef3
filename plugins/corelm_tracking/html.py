"""One page that shows a whole run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from corelm.kinds import ComponentConfig, StageSummary, Tracker
from corelm_tracking.jsonl import JsonLines
from corelm_tracking.page import Curves, render

FILE = "report.html"


class HtmlPage(Tracker):
    """Keeps report.html, one self-contained page with the stages and their curves.

    Nothing is loaded from elsewhere. The page is written again every ``seconds`` while stages run and at the end,
    each time whole or not at all. Curves of stages that an earlier run has done come from events.jsonl.
    """

    class Config(ComponentConfig):
        """Options."""

        seconds: float = Field(10.0, gt=0, description="Least time between two versions of the page.")

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        """A run starts."""
        self.folder, self.name, self.stages = folder, str(recipe["name"]), stages
        self.curves: dict[str, Curves] = {}
        self.last = time.monotonic()
        for stage, steps in (JsonLines.recorded(folder) or {}).items():
            for step in sorted(steps):
                self._add(stage, step, steps[step])

    @staticmethod
    def _cut(curves: Curves, step: int) -> None:
        """Forget what a run that was cut off had reached beyond its last checkpoint."""
        for points in curves.values():
            points[:] = [point for point in points if point[0] <= step]

    def _add(self, stage: str, step: int, figures: Mapping[str, float | None]) -> None:
        curves = self.curves.setdefault(stage, {})
        for name, value in figures.items():
            points = curves.setdefault(name, [])
            if not points or step > points[-1][0]:
                points.append((step, math.nan if value is None else float(value)))

    def stage_start(self, stage: StageSummary, resumed_from: int = 0) -> None:
        """A stage starts."""
        self._cut(self.curves.setdefault(stage.name, {}), resumed_from)

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        """A step of a stage."""
        if total:
            self._add(stage.name, step, figures)
        if time.monotonic() - self.last >= self.config.seconds:
            self._write(running=True)

    def stage_end(self, stage: StageSummary) -> None:
        """A stage ended."""
        if time.monotonic() - self.last >= self.config.seconds:
            self._write(running=True)

    def close(self, stages: list[StageSummary]) -> None:
        """The run ended."""
        self._write(running=False)

    def _write(self, running: bool) -> None:
        self.last = time.monotonic()
        path, made = self.folder / FILE, self.folder / f".{FILE}.{os.getpid()}"
        made.write_text(render(self.name, self.stages, self.curves, running), encoding="utf-8")
        made.replace(path)
