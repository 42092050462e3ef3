"""Progress in the terminal."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from corelm.kinds import ComponentConfig, StageSummary, Tracker
from corelm_tracking.figures import duration, line

_MARKS = {"done": "✓", "resumed": "✓", "up to date": "=", "failed": "✗", "stopped": "■"}


class Progress(Tracker):
    """Live progress in the terminal, and the table of stages at the end.

    A terminal gets a bar with stage, step, loss, tokens per second and the time that is left. A pipe gets a line
    per stage, and one every ``seconds`` within a stage.
    """

    class Config(ComponentConfig):
        """Options."""

        seconds: float = Field(10.0, gt=0, description="Time between two lines, where there is no terminal.")

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        """A run starts."""
        self.console = Console(highlight=False, soft_wrap=True)
        self.folder = folder
        self.bar: Bar | None = None
        self.task: TaskID | None = None
        self.begun = self.last = time.monotonic()
        self.first_step: int | None = None
        self.console.print(
            f"[bold]{escape(str(recipe['name']))}[/bold] in {escape(str(folder))}: {len(stages)} stages"
        )

    def stage_start(self, stage: StageSummary, resumed_from: int = 0) -> None:
        """A stage starts."""
        resumed = f", goes on from step {resumed_from}" if resumed_from else ""
        why = f" ({stage.reason})" if stage.reason else ""
        self.first_step, self.begun, self.last = None, time.monotonic(), time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"  {stage.name}: {stage.use}{why}{resumed}", markup=False)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(compact=True),
        )
        self.bar = Bar(*columns, console=self.console, transient=True)
        self.bar.start()
        self.task = self.bar.add_task(f"{stage.name}: {stage.use}{resumed}", total=None, figures="")

    def step(self, stage: StageSummary, step: int, total: int, figures: Mapping[str, float]) -> None:
        """A step of a stage."""
        now = time.monotonic()
        if self.first_step is None:
            self.first_step, self.begun = step, now
        if self.bar is not None and self.task is not None:
            counted = f"{step}/{total}  " if total else f"{step}  "
            self.bar.update(self.task, completed=step, total=total or None, figures=counted + line(_live(figures)))
        elif now - self.last >= self.config.seconds:
            self.last = now
            done = step - self.first_step
            left = (
                f", {duration((now - self.begun) / done * (total - step))} left" if total > step and done > 0 else ""
            )
            counted = f"{step}/{total}" if total else str(step)
            self.console.print(f"    {stage.name} {counted} {line(_live(figures))}{left}", markup=False)

    def note(self, stage: StageSummary | None, message: str) -> None:
        """Something worth telling."""
        width = self.console.width if self.console.is_terminal else max(len(message), 1) + 4
        for text in message.splitlines() or [""]:
            lines = textwrap.wrap(text, width - 4, break_long_words=False, break_on_hyphens=False)
            self.console.print(textwrap.indent("\n".join(lines), "    "), markup=False)

    def stage_end(self, stage: StageSummary) -> None:
        """A stage ended."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = self.task = None
        took = f" {duration(stage.seconds)}" if stage.seconds else ""
        why = f" ({stage.reason})" if stage.status == "up to date" and stage.reason else ""
        mark = _MARKS.get(stage.status, "·")
        text = f"{mark} {stage.name:<12} {stage.status}{why}{took}  {line(stage.figures)}"
        self.console.print(text, markup=False)

    def close(self, stages: list[StageSummary]) -> None:
        """The run ended: one table of the stages, where things are, what to try next."""
        if self.bar is not None:
            self.bar.stop()
        table = Table(box=None, pad_edge=False)
        for title in ("stage", "part", "status", "time", "figures"):
            table.add_column(title, overflow="fold", no_wrap=title != "figures")
        for stage in stages:
            time_ = duration(stage.seconds) if stage.seconds else ""
            cells = (stage.name, stage.use, stage.status or "not reached", time_, line(stage.figures, 6))
            table.add_row(*map(escape, cells))
        self.console.print()
        # A pipe has no width of its own; the usual 80 columns would fold every row.
        width = None if self.console.is_terminal else max(self.console.width, 100)
        Console(highlight=False, width=width).print(table)
        self.console.print(f"\nresults: {self.folder}", markup=False)
        page = self.folder / "report.html"
        if page.exists():
            self.console.print(f"page:    {page}", markup=False)
        self._next(stages)

    def _next(self, stages: list[StageSummary]) -> None:
        models = [s for s in stages if s.status in ("done", "up to date", "resumed") and _is_model(s)]
        if not models:
            return
        folder = models[-1].folder
        self.console.print("next:", markup=False)
        self.console.print(f'  corelm generate {folder} --prompt "def main("', markup=False)
        self.console.print(f"  corelm report {self.folder}", markup=False)


def _is_model(stage: StageSummary) -> bool:
    return (Path(stage.folder) / "model.json").exists() and stage.use != "reward-model"


def _live(figures: Mapping[str, float]) -> dict[str, float]:
    shown = ("loss", "accuracy", "reward", "tokens_per_second", "megabytes")
    return {name: figures[name] for name in shown if name in figures} or dict(figures)
