"""What a tracker does while it is told of a run: it goes on, changes nothing, is quick and stays in its folder."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import time
from pathlib import Path

from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.tracker.bench import RECIPE, opened, tell
from corelm.kinds.tracker import StageSummary


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
    with opened(tracker) as (_, stages):
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
    with opened(tracker) as (_, stages):
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
    examples=22,
)
def closes_anywhere(part: PartUnderTest, draw: Draw) -> None:
    """Begin and stop."""
    tracker = part.bench.subject(part, draw).part
    begun = draw.choice("begun", [False, True])
    with opened(tracker) as (_, stages):
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
