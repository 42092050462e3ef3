"""Properties of trackers."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corelm.conformance.bench import Bench
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.kinds.tracker import StageSummary

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

RECIPE: dict[str, Any] = {"name": "kit", "seed": 0, "model": {"dim": 8}, "stages": {"base": {"use": "pretrain"}}}


class TrackerBench(Bench):
    """Told about a short run."""

    kind = "tracker"


@contextlib.contextmanager
def _opened(tracker: Any) -> Iterator[tuple[Path, list[StageSummary]]]:
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


@property_of(
    "tracker",
    statement="A whole run goes through, failures, markup and stages without steps included.",
    formula="∀ events: no exception",
    catches="a tracker that breaks on what it didn't expect",
    tier="io",
    examples=4,
)
def survives_a_run(part: PartUnderTest, draw: Draw) -> None:
    """Tell a run."""
    tracker = part.bench.subject(part, draw).part
    with _opened(tracker) as (_, stages):
        tell(tracker, stages)


@property_of(
    "tracker",
    statement="It only reads what it is given.",
    formula="figures, stages, recipe after = before",
    catches="figures that are changed for display",
    tier="bit",
    examples=4,
)
def only_reads(part: PartUnderTest, draw: Draw) -> None:
    """Figures, stages and recipe before and after."""
    tracker = part.bench.subject(part, draw).part
    figures, stage = {"loss": 1.25, "tokens_per_second": 10.0}, StageSummary("base", "pretrain")
    recipe, before = copy.deepcopy(RECIPE), (dict(figures), copy.deepcopy(stage))
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        tracker.open(Path(name), recipe, [stage])
        tracker.stage_start(stage)
        for step in (1, 2):
            tracker.step(stage, step, 2, figures)
        tracker.stage_end(stage)
        tracker.close([stage])
    assert (figures, stage) == before, f"figures {figures}, stage {stage}"
    assert recipe == RECIPE, "the recipe was changed"


@property_of(
    "tracker",
    statement="A step costs it well under a millisecond.",
    formula="median time of a step < 1.5 ms",
    catches="a page that is written at every step",
    tier="stat",
    tolerance="processor time, the median of nine hundreds of steps; a step of training takes 150 ms and more",
    examples=1,
)
def cheap_per_step(part: PartUnderTest, draw: Draw) -> None:
    """The median of batches of steps, so that a busy machine doesn't count."""
    tracker = part.bench.subject(part, draw).part
    with _opened(tracker) as (_, stages):
        tracker.stage_start(stages[0])
        times = []
        for batch in range(9):
            started = time.process_time()
            for step in range(100):
                tracker.step(stages[0], 100 * batch + step + 1, 1_000_000, {"loss": 1.0, "tokens_per_second": 1.0})
            times.append((time.process_time() - started) / 100)
        tracker.close(stages)
    median = sorted(times)[len(times) // 2]
    assert median < 1.5e-3, f"a step costs {1e3 * median:.2f} ms"


@property_of(
    "tracker",
    statement="A run may end anywhere: close works without stages that were begun, and right after open.",
    formula="open ⧺ prefix of a run ⧺ close: no exception",
    catches="a file that isn't open yet, a bar that was never made",
    tier="io",
    examples=12,
)
def closes_anywhere(part: PartUnderTest, draw: Draw) -> None:
    """Begin and stop."""
    tracker = part.bench.subject(part, draw).part
    begun = draw.choice("begun", [False, True])
    with _opened(tracker) as (_, stages):
        if begun:
            tracker.stage_start(stages[0])
            tracker.step(stages[0], 1, 10, {"loss": float("nan")})
        tracker.close(stages)


@property_of(
    "tracker",
    statement="It writes into the run's folder only, and opens a folder where a run was before.",
    formula="files written ⊂ folder",
    catches="files in the working directory, a crash on the second run",
    tier="io",
    examples=2,
)
def stays_in_its_folder(part: PartUnderTest, draw: Draw) -> None:
    """Twice into one folder; the working directory is another one."""
    subject = part.bench.subject(part, draw)
    stages = [StageSummary("base", "pretrain"), StageSummary("scores", "evaluate")]
    with (
        tempfile.TemporaryDirectory() as name,
        tempfile.TemporaryDirectory() as elsewhere,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.chdir(elsewhere),
    ):
        for tracker in (subject.part, subject.rebuild()):
            tracker.open(Path(name), copy.deepcopy(RECIPE), copy.deepcopy(stages))
            tell(tracker, copy.deepcopy(stages))
        assert not list(Path(elsewhere).iterdir()), f"written elsewhere: {list(Path(elsewhere).iterdir())}"


def _strictly(text: str) -> Any:
    """JSON as others read it, without NaN and infinities."""

    def no(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=no)


@property_of(
    "tracker",
    statement="What it writes can be read: JSON is JSON whatever the figures, pages show what was said and don't obey it.",
    formula="∀ .json, .jsonl: parse; ∀ .html: no <script> of a note's",
    catches="NaN in a file that others read, a note that opens a tag",
    tier="io",
    examples=2,
)
def files_can_be_read(part: PartUnderTest, draw: Draw) -> None:
    """A run with a loss that is no number, and a note that would like to be a script."""
    tracker = part.bench.subject(part, draw).part
    odd, said = draw.choice("loss", [float("nan"), float("inf"), 1.0]), "<script>kit()</script> & \\u2028 </script>"
    with _opened(tracker) as (folder, stages):
        base = stages[0]
        tracker.stage_start(base)
        for step in (1, 2):
            tracker.step(base, step, 2, {"loss": odd, "learning_rate": 0.1})
        tracker.note(base, said)
        base.status, base.figures, base.reason = "done", {"loss": odd}, said
        tracker.stage_end(base)
        tracker.close(stages)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            if path.suffix in (".json", ".jsonl"):
                text = path.read_text(encoding="utf-8")
                for line in [text] if path.suffix == ".json" else text.splitlines():
                    try:
                        _strictly(line)
                    except ValueError as error:
                        raise AssertionError(f"{path.name}: {error}: {line[:80]}") from None
            if path.suffix == ".html":
                assert "<script>kit()" not in path.read_text(encoding="utf-8"), f"{path.name} runs what a note says"
