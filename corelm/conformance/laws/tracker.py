"""Properties of trackers."""

from __future__ import annotations

import contextlib
import copy
import gc
import html
import io
import json
import math
import os
import tempfile
import time
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corelm.conformance.bench import Bench
from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.kinds.tracker import StageSummary
from corelm.registration import active

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
    examples=20,
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
    statement="What it writes can be read: JSON is JSON whatever the figures, pages show what was said and don't obey it, and "
    "all of it is on disk when the run has ended.",
    formula="∀ .json, .jsonl: parse; ∀ .html: no <script> of a note's; files after close = files when the tracker is gone",
    catches="NaN in a file that others read, a note that opens a tag, a last line that waits in a buffer",
    tier="io",
    examples=2,
)
def files_can_be_read(part: PartUnderTest, draw: Draw) -> None:
    """A run with a loss that is no number, and a note that would like to be a script."""
    tracker = part.bench.subject(part, draw).part
    odd, said = draw.choice("loss", [float("nan"), float("inf"), 1.0]), "<script>kit()</script> & \\u2028 </script>"
    base = StageSummary("base", "pretrain")
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        tracker.open(folder, copy.deepcopy(RECIPE), [base])
        tracker.stage_start(base)
        for step in (1, 2):
            tracker.step(base, step, 2, {"loss": odd, "learning_rate": 0.1})
        tracker.note(base, said)
        base.status, base.figures, base.reason = "done", {"loss": odd}, said
        tracker.stage_end(base)
        tracker.close([base])
        written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        del tracker
        gc.collect()
        late = [path.name for path in written if path.read_bytes() != written[path]]
        assert not late, f"the run had ended, and {late[0]} was written on when the tracker went"
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


@property_of(
    "tracker",
    statement="It says what happened: of each stage its name, its part and how it ended.",
    formula="it names a stage ⇒ ∀ stage: {name, use, status} ⊂ what is printed ⧺ what is written",
    catches="a stage that failed and is not mentioned, the name of one stage under another",
    tier="io",
    examples=4,
)
def says_what_happened(part: PartUnderTest, draw: Draw) -> None:
    """Everything that is printed and written, as plain text; as a pipe and as a terminal."""
    tracker = part.bench.subject(part, draw).part
    terminal = draw.choice("terminal", [False, True])
    stages = [StageSummary("first-stage", "pretrain"), StageSummary("other", "evaluate")]
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.redirect_stdout(said),
        unittest.mock.patch.dict(os.environ, {"FORCE_COLOR": "1"} if terminal else {"NO_COLOR": "1"}),
    ):
        tracker.open(Path(name), copy.deepcopy(RECIPE), stages)
        tell(tracker, stages)
        written = [path.read_text(encoding="utf-8") for path in sorted(Path(name).rglob("*")) if path.is_file()]
    text = html.unescape("\n".join([said.getvalue(), *written]))
    if not any(stage.name in text for stage in stages):
        raise NotApplicable("it speaks of no stages")
    for stage in stages:
        for told in (stage.name, stage.use, stage.status):
            assert told in text, f"{told!r} of stage {stage.name} is never mentioned"
    keeps = part.cls.recorded(Path(tempfile.gettempdir()) / "no such folder") is not None
    assert not keeps or "a note about no stage" in text, "it keeps figures, and drops what was noted"


TORN = '{"event": "to'
"""The beginning of a line."""


def _kill(folder: Path, tracker: Any) -> None:
    """What a kill leaves: files as they are on disk, and in files of lines a last one that is cut off."""
    held = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    tracker.close([])
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(held.get(path, b"") + (TORN.encode() if path.suffix == ".jsonl" else b""))


@property_of(
    "tracker",
    statement="What it keeps of a run's figures can be read back, of a run that was cut off and goes on as well.",
    formula="recorded(folder)[stage][step] = figures; resumed from s: what was told beyond s before is replaced",
    catches="a last step that is missing, figures of one stage under another, a curve that doubles back after a resume",
    tier="bit",
    examples=13,
)
def figures_can_be_read_back(part: PartUnderTest, draw: Draw) -> None:
    """A run that is cut off after its checkpoint, and one that goes on from there."""
    if part.cls.recorded(Path(tempfile.gettempdir()) / "no such folder") is None:
        raise NotApplicable("it keeps no figures")
    subject = part.bench.subject(part, draw, every=draw.choice("every", [1, 2, 1, 5]))
    every = getattr(subject.config, "every", 1)
    kept, total = draw.integer("checkpoint", 0, 6), 12
    reached = total if every == 5 else draw.integer("reached", kept, total)
    wanted: dict[int, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        for run, (first, last) in enumerate(((1, 7), (kept + 1, reached))):
            tracker, stage = subject.rebuild(), StageSummary("base", "pretrain")
            tracker.open(Path(name), copy.deepcopy(RECIPE), [stage])
            tracker.stage_start(stage, resumed_from=first - 1)
            wanted = {step: figures for step, figures in wanted.items() if step < first}
            for step in range(first, last + 1):
                loss = 100.0 * run + step / 7
                tracker.step(stage, step, total, {"loss": loss, "odd": math.inf if step % 2 else 1.0})
                if step % every == 0 or step == total:
                    wanted[step] = {"loss": loss, "odd": None if step % 2 else 1.0}
                if step == kept:
                    tracker.checkpoint(stage, step)
            tracker.step(stage, 99, 0, {})
            if run:
                tracker.stage_end(stage)
            else:
                _kill(Path(name), tracker)
        found = part.cls.recorded(Path(name))
        tracker.close([stage])
        lines = [line for p in Path(name).rglob("*.jsonl") for line in p.read_text(encoding="utf-8").splitlines()]
    joined = [line for line in lines if line.startswith(TORN) and line != TORN]
    assert not joined, f"a line that was cut off is continued: {joined[0][:60]}"
    assert found == {"base": wanted}, f"told was {wanted}, it recorded {found}"


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
        with _opened(tracker) as (folder, stages):
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
        folder, stages = patches.enter_context(_opened(tracker))
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
