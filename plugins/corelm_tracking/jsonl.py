"""Events as lines of JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from corelm.kinds import ComponentConfig, StageSummary, Tracker

FILE = "events.jsonl"
KEYS = frozenset({"event", "time", "stage", "step", "total"})
"""What the line of a step holds besides its figures."""


class JsonLines(Tracker):
    """Writes every event as a line of JSON to events.jsonl.

    Lines are appended, run after run. A line that a kill has cut off is closed before the next one is written, so
    that every other line stays readable. Figures that are no finite number, which JSON can't say, are null.
    """

    class Config(ComponentConfig):
        """Options."""

        every: int = Field(1, ge=1, description="Write every how many steps of a stage; its last step always.")

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        """Open the file at its end."""
        path = folder / FILE
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self.file: IO[str] = path.open("a", encoding="utf-8")
        if torn:
            self.file.write("\n")
        self._write("run-start", stages=[stage.name for stage in stages])

    @classmethod
    def recorded(cls, folder: Path) -> dict[str, dict[int, dict[str, float | None]]] | None:
        """Figures by stage and step, read from the lines."""
        stages: dict[str, dict[int, dict[str, float | None]]] = {}
        for event in read_events(folder):
            if event["event"] == "stage-start":
                known = stages.get(event["stage"], {})
                stages[event["stage"]] = {step: known[step] for step in known if step <= event["resumed_from"]}
            elif event["event"] == "step":
                figures = {name: event[name] for name in event if name not in KEYS}
                stages.setdefault(event["stage"], {})[event["step"]] = figures
        return stages

    def stage_start(self, stage: StageSummary, resumed_from: int = 0) -> None:
        """A stage starts."""
        self._write("stage-start", stage=stage.name, use=stage.use, resumed_from=resumed_from, reason=stage.reason)

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        """A step of a stage."""
        if figures and (step % self.config.every == 0 or step == total):
            self._write("step", stage=stage.name, step=step, total=total, **_finite(figures))

    def note(self, stage: StageSummary | None, message: str) -> None:
        """Something worth telling."""
        self._write("note", stage=stage.name if stage else None, message=message)

    def checkpoint(self, stage: StageSummary, step: int) -> None:
        """A checkpoint was saved: what was written before it must not be lost either."""
        self._write("checkpoint", stage=stage.name, step=step)
        self.file.flush()

    def stage_end(self, stage: StageSummary) -> None:
        """A stage ended."""
        figures = _finite(stage.figures)
        self._write("stage-end", stage=stage.name, status=stage.status, seconds=stage.seconds, figures=figures)
        self.file.flush()

    def close(self, stages: list[StageSummary]) -> None:
        """The run ended."""
        self._write("run-end")
        self.file.close()

    def _write(self, event: str, **fields: Any) -> None:
        self.file.write(
            json.dumps({"event": event, "time": round(time.time(), 3), **fields}, ensure_ascii=False) + "\n"
        )


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a run's folder; lines that a kill has cut off are passed over."""
    path = folder / FILE
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event
