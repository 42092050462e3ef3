"""What a tracker prints and writes: it can be read, says what happened, and gives the figures back."""

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
import unittest.mock
from pathlib import Path
from typing import Any

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.tracker.bench import RECIPE, tell
from corelm.kinds.tracker import StageSummary


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
    examples=14,
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
