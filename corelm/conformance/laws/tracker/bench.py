"""How trackers are exercised: each is told about a short run."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corelm.conformance.bench import Bench
from corelm.kinds.tracker import StageSummary

RECIPE: dict[str, Any] = {"name": "kit", "seed": 0, "model": {"dim": 8}, "stages": {"base": {"use": "pretrain"}}}


class TrackerBench(Bench):
    """Told about a short run."""

    kind = "tracker"


@contextlib.contextmanager
def opened(tracker: Any) -> Iterator[tuple[Path, list[StageSummary]]]:
    """An opened tracker, its folder and two stages; what it prints is swallowed."""
    stages = [StageSummary("base", "pretrain"), StageSummary("scores", "evaluate")]
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        tracker.open(Path(name), copy.deepcopy(RECIPE), stages)
        yield Path(name), stages


def tell(tracker: Any, stages: list[StageSummary], steps: int = 5) -> None:
    """A whole run."""
    base = stages[0]
    tracker.stage_start(base)
    for step in range(1, steps + 1):
        tracker.step(base, step, steps, {"loss": 2.0 / step, "tokens_per_second": 1e3})
    tracker.note(base, "[bold]a note[/bold] <b>with</b> markup & ümläuts")
    tracker.note(None, "a note about no stage")
    tracker.checkpoint(base, steps)
    base.status, base.seconds, base.figures = "done", 1.5, {"loss": 0.4}
    tracker.stage_end(base)
    tracker.stage_start(stages[1], resumed_from=2)
    stages[1].status, stages[1].reason = "failed", "it [broke] <here>"
    tracker.stage_end(stages[1])
    tracker.close(stages)
