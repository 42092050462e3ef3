"""What the pages of a tracker show."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import unittest.mock
from pathlib import Path

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tracker.bench import RECIPE, opened
from corelm.kinds.tracker import StageSummary
from corelm.registration import active


@property_of(
    "tracker",
    statement="A page shows how the run ended: nothing of what was told beyond a checkpoint that the run went back to.",
    formula="page(x₁ … x₇, back to s, y₊₁ … y₁₂) = page(x₁ … x_s, y₊₁ … y₁₂), no more reload; page(x) ≠ page(x′)",
    catches="a curve that doubles back, a page that waits for a run that is over, one that is written at every step",
    tier="bit",
    examples=6,
)
def pages_show_how_it_ended(part: PartUnderTest, draw: Draw) -> None:
    """Steps with other losses before the run goes back, and the run without them."""
    subject, kept = part.bench.subject(part, draw, seconds=1e-9), draw.integer("checkpoint", 0, 6)
    pages = []
    for detour, first in ((True, 1.0), (False, 1.0), (False, 1.5)):
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
            tracker, stage = subject.rebuild(), StageSummary("base", "pretrain")
            tracker.open(Path(name), copy.deepcopy(RECIPE), [stage])
            tracker.stage_start(stage)
            for step in range(1, 8 if detour else kept + 1):
                tracker.step(stage, step, 12, {"loss": 1.0 + step if step > kept else first / step})
            if detour:
                tracker.stage_start(stage, resumed_from=kept)
            for step in range(kept + 1, 13):
                tracker.step(stage, step, 12, {"loss": first / step})
            for step in (13, 14) if detour else ():
                tracker.step(stage, step, 0, {"accuracy": 0.5})  # what has no end in sight is no curve
            during = list(Path(name).rglob("*.html"))
            stage.status, stage.figures = "done", {"loss": 0.1}
            tracker.stage_end(stage)
            tracker.close([stage])
            assert during or not list(Path(name).rglob("*.html")), "there is no page before the run has ended"
            pages.append({p.name: p.read_text(encoding="utf-8") for p in Path(name).rglob("*.html")})
    if not pages[0]:
        raise NotApplicable("it writes no page")
    if "seconds" in part.cls.Config.model_fields:
        _seldom(part, draw)
        tracker = part.bench.subject(part, draw, seconds=600.0).part
        with opened(tracker) as (folder, stages):
            tracker.stage_start(stages[0])
            tracker.step(stages[0], 1, 2, {"loss": 1.0})
            tracker.stage_end(stages[0])
            early = list(folder.rglob("*.html"))
            tracker.close(stages)
        assert not early, "a page is written again before its seconds are over"
    assert pages[1] != pages[2], "other losses give the same page"
    assert pages[0] == pages[1], "the page shows steps that the run went back behind"
    for name, text in pages[0].items():
        assert 'http-equiv="refresh"' not in text, f"{name} reloads itself though the run is over"


def _seldom(part: PartUnderTest, draw: Draw) -> None:
    """A clock that goes on by a second with every step: a page of ten seconds is written at every tenth, and at the end."""
    tracker, now, pages = part.bench.subject(part, draw, seconds=10.0).part, 1e6, set()
    with contextlib.ExitStack() as patches:
        for clock in ("time", "monotonic", "perf_counter"):
            patches.enter_context(unittest.mock.patch(f"time.{clock}", lambda: now))
        folder, stages = patches.enter_context(opened(tracker))
        tracker.stage_start(stages[0])
        for step in range(1, 41):
            now += 1.0
            tracker.step(stages[0], step, 50, {"loss": 1.0 / step})
            pages |= {page.read_text(encoding="utf-8") for page in folder.rglob("*.html")}
        now, stages[0].status = now + 20.0, "done"
        tracker.stage_end(stages[0])
        ended = {page.read_text(encoding="utf-8") for page in folder.rglob("*.html")} - pages
        tracker.close(stages)
    assert ended, "a stage has ended, and for twenty seconds the page doesn't say so"
    assert 3 <= len(pages) <= 4, f"in 40 seconds {len(pages)} pages, a page is to last for ten"


@property_of(
    "tracker",
    statement="A page that is called html shows what earlier runs in the folder have done, where a tracker kept their figures.",
    formula="recorded(run₁) = x ≠ x′ ⇒ page(run₂ | x) ≠ page(run₂ | x′)",
    catches="a report without the curves of all stages that were up to date",
    tier="bit",
    examples=1,
    excuse=lambda part: (
        None if getattr(part.cls, "formula", part.name) == "html" else "its name doesn't promise a page of the run"
    ),
)
def pages_show_earlier_runs(part: PartUnderTest, draw: Draw) -> None:
    """A run whose figures every tracker that keeps any has kept; then one of another stage."""
    subject, nowhere = part.bench.subject(part, draw), Path(tempfile.gettempdir()) / "no such folder"
    installed = [record.load() for record in active().parts("tracker")]
    keepers = [cls for cls in (*installed, part.cls) if cls.recorded(nowhere) is not None]
    pages = []
    for first, told in ((1.0, False), (1.5, False), (1.0, True)):
        base, scores = StageSummary("base", "pretrain"), StageSummary("scores", "evaluate")
        base.seconds = 0.0 if told else base.seconds
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
            for keeper in [cls(cls.Config()) for cls in keepers]:
                keeper.open(Path(name), copy.deepcopy(RECIPE), [base])
                keeper.stage_start(base)
                for step in range(1, 6):
                    keeper.step(base, step, 5, {"loss": first / step})
                keeper.stage_end(base)
                keeper.close([base])
            base.status = "up to date"
            tracker = subject.rebuild()
            tracker.open(Path(name), copy.deepcopy(RECIPE), [base, scores])
            tracker.stage_start(scores)
            scores.status = "done"
            tracker.stage_end(scores)
            tracker.close([base, scores])
            pages.append({page.name: page.read_text(encoding="utf-8") for page in Path(name).rglob("*.html")})
    assert pages[0] != pages[1], "whatever the earlier run's figures were, the page is the same"
    assert pages[0] == pages[2], "a stage that was up to date is said to have taken time"
