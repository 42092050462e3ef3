"""Trackers that say or keep something else than they were told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelm.conformance.planted import plant, reference
from corelm.kinds.component import ComponentConfig
from corelm.kinds.tracker import StageSummary, Tracker


@reference
class Log(Tracker):
    """Steps in a JSON file and on a page, both written when a stage begins, saves or ends; the rest is printed."""

    formula = "html"

    class Config(ComponentConfig):
        """Nothing."""

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        """Read what is there."""
        self.folder, self.known = folder, self.recorded(folder) or {}

    @classmethod
    def recorded(cls, folder: Path) -> dict[str, dict[int, dict[str, float | None]]] | None:
        """As it was written."""
        path = folder / "steps.json"
        read = json.loads(path.read_text()) if path.exists() else {}
        return {stage: {int(step): figures for step, figures in steps.items()} for stage, steps in read.items()}

    def stage_start(self, stage: StageSummary, resumed_from: int = 0) -> None:
        """Forget what comes again."""
        steps = self.known.get(stage.name, {})
        self.known[stage.name] = {step: steps[step] for step in steps if step <= self.kept(resumed_from)}
        self.write()

    def kept(self, resumed_from: int) -> int:
        """Up to which step."""
        return resumed_from

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Keep the figures."""
        if figures and total:
            found = {name: value if abs(value) < float("inf") else None for name, value in figures.items()}
            self.known[self.whose(stage)][step] = found

    def whose(self, stage: StageSummary) -> str:
        """The stage's."""
        return stage.name

    def note(self, stage: StageSummary | None, message: str) -> None:
        """Say it."""
        print(message)

    def checkpoint(self, stage: StageSummary, step: int) -> None:
        """What was told before must not be lost."""
        self.write()

    def stage_end(self, stage: StageSummary) -> None:
        """Say how."""
        print(stage.name, stage.use, self.status(stage))
        self.write()

    def status(self, stage: StageSummary) -> str:
        """As it was told."""
        return stage.status

    def write(self) -> None:
        """A page, and a file to read back."""
        rows = "".join(f"<p>{name} {step} {f}</p>" for name in self.known for step, f in self.known[name].items())
        (self.folder / "page.html").write_text(f"{self.head()}{rows}")
        (self.folder / "steps.json").write_text(json.dumps(self.known).replace("NaN", "null"))

    def head(self) -> str:
        """Of the page."""
        return "<title>steps</title>"


@plant("says_what_happened", "whatever ends is done")
class AllIsDone(Log):
    """Failures are not mentioned."""

    def status(self, stage: StageSummary) -> str:
        return "done"


@plant("figures_can_be_read_back", "a resumed run's figures come after those of the one that was cut off")
class KeepsBoth(Log):
    """Steps of the first run stay, wherever the second one got to."""

    def kept(self, resumed_from: int) -> int:
        return 10**9

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        super().step(stage, step, total, figures)
        self.write()


@plant("figures_can_be_read_back", "figures go to the stage that was opened last")
class OneName(Log):
    """All stages are one."""

    def whose(self, stage: StageSummary) -> str:
        self.known.setdefault("run", {})
        return "run"


@plant("figures_can_be_read_back", "a checkpoint is no reason to write")
class ForgetsOnAKill(Log):
    """The model goes on from there, its curve does not."""

    def checkpoint(self, stage: StageSummary, step: int) -> None:
        pass


@plant("pages_show_how_it_ended", "the page of a run that is over goes on loading itself")
class NeverRests(Log):
    """As if there was more to come."""

    def head(self) -> str:
        return '<meta http-equiv="refresh" content="1">'


@plant("pages_show_earlier_runs", "a run knows of itself only")
class ForgetsEarlierRuns(Log):
    """Curves of the last stage."""

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        super().open(folder, recipe, stages)
        self.known = {}


@plant("files_can_be_read", "lines wait in a buffer until the process goes")
class WaitsInABuffer(Log):
    """Whoever looks at a run that has just ended finds it unfinished."""

    def close(self, stages: list[StageSummary]) -> None:
        self.waiting = (self.folder / "events.jsonl").open("w", encoding="utf-8")
        self.waiting.write('{"event": "run-end"}\n')
