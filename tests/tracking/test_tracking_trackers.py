"""Trackers: what they write reads well, survives kills, and comes from the figures that they were told."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from corelm_tracking.figures import duration, line, number
from corelm_tracking.jsonl import read_events
from corelm_tracking.page import HEIGHT, WIDTH, render
from hypothesis import given, settings
from hypothesis import strategies as st

from corelm.kinds import Spec, StageSummary, Tracker

RECIPE = {"name": "a run"}
ALL = ["progress", "jsonl", "html"]


def build(use: str, **options: Any) -> Tracker:
    return Spec.read("tracker", {"use": use, **options}).build()


def stages() -> list[StageSummary]:
    return [StageSummary("base", "pretrain"), StageSummary("small", "quantize")]


def tell(tracker: Tracker, folder: Path, steps: int = 5, first: int = 1, end: bool = True) -> list[StageSummary]:
    """A run of two stages, the second of which is never reached; or one that is killed in the first."""
    told = stages()
    folder.mkdir(parents=True, exist_ok=True)
    tracker.open(folder, RECIPE, told)
    tracker.stage_start(told[0], resumed_from=first - 1)
    for step in range(first, steps + 1):
        tracker.step(told[0], step, 10, {"loss": 5.0 / step, "learning_rate": 1e-3, "tokens_per_second": 1234.0})
    tracker.note(told[0], "3 documents were <left> out & counted")
    tracker.checkpoint(told[0], steps)
    if end:
        told[0].status, told[0].seconds, told[0].figures = "done", 75.0, {"loss": 5.0 / steps, "tokens": 1_234_567.0}
        told[0].notes.append("3 documents were <left> out & counted")
        tracker.stage_end(told[0])
        tracker.close(told)
    return told


class Tags(HTMLParser):
    """Checks that tags nest, and collects them with their attributes."""

    VOID = {"meta", "line", "circle", "path", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("use", ALL)
def test_a_tracker_only_reads_what_it_is_told(use, tmp_path, capsys):
    told, figures = stages(), {"loss": 1.0, "odd": float("nan")}
    tracker = build(use)
    tracker.open(tmp_path, RECIPE, told)
    tracker.stage_start(told[0])
    tracker.step(told[0], 1, 2, figures)
    tracker.step(told[0], 7, 0, {})
    tracker.note(None, "to nobody in particular")
    tracker.stage_end(told[0])
    tracker.close(told)
    assert figures.keys() == {"loss", "odd"} and told == stages() and RECIPE == {"name": "a run"}


@pytest.mark.parametrize("use", ALL)
def test_a_tracker_is_quick(use, tmp_path, capsys):
    """Under 1 % of a step of 30 ms, on average."""
    tracker, told = build(use), stages()
    tracker.open(tmp_path, RECIPE, told)
    tracker.stage_start(told[0])
    figures = {"loss": 1.0, "learning_rate": 1e-3, "gradient_norm": 1.0, "tokens": 1e6, "tokens_per_second": 1e4}
    started = time.process_time()
    for step in range(2000):
        tracker.step(told[0], step, 2000, figures)
    assert (time.process_time() - started) / 2000 < 3e-4


@pytest.mark.parametrize("use", ALL)
def test_a_run_that_did_nothing_can_be_closed(use, tmp_path, capsys):
    tracker, told = build(use), stages()
    tracker.open(tmp_path, RECIPE, told)
    tracker.close(told)


def test_a_pipe_gets_plain_lines_and_one_table(tmp_path, capsys, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    tell(build("progress", seconds=1e-9), tmp_path)
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\r" not in said
    lines = [text.rstrip() for text in said.splitlines()]
    assert lines[0] == f"a run in {tmp_path}: 2 stages"
    assert lines[1] == "  base: pretrain"
    assert re.fullmatch(r"    base 5/10 loss 1, tokens per second 1234, [\d.]+ s left", lines[6])
    assert "    3 documents were <left> out & counted" in lines
    assert any(re.fullmatch(r"✓ base +done 1 min 15 s  loss 1, tokens 1\.23M", text) for text in lines)
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["stage", "part", "status", "time", "figures"]
    assert table[1].split("  ")[0] == "base" and "1 min 15 s" in table[1]
    assert table[2].split()[:4] == ["small", "quantize", "not", "reached"]


def test_a_resumed_stage_says_from_where(tmp_path, capsys):
    tell(build("progress"), tmp_path, first=4)
    assert "  base: pretrain, goes on from step 3" in capsys.readouterr().out


def test_lines_within_a_stage_keep_their_distance(tmp_path, capsys):
    tell(build("progress", seconds=3600.0), tmp_path)
    assert "base 5/10" not in capsys.readouterr().out


def test_a_terminal_gets_a_live_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "110")
    tell(build("progress"), tmp_path)
    said = capsys.readouterr().out
    assert "base: pretrain" in said and "5/10  loss 1, tokens per second 1234" in said


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, capsys):
    tracker, told = build("progress"), [StageSummary("[red]x[/red]", "pretrain", figures={"[b]": 1.0}, status="done")]
    tracker.open(tmp_path, {"name": "[bold]name[/bold]"}, told)
    tracker.close(told)
    said = capsys.readouterr().out
    assert "[bold]name[/bold]" in said and "[red]x[/red]" in said and "[b] 1" in said


def test_every_event_is_a_line_of_json(tmp_path):
    tell(build("jsonl"), tmp_path)
    events = [json.loads(text) for text in (tmp_path / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["run-start", "stage-start", *["step"] * 5, "note", "checkpoint", "stage-end", "run-end"]
    assert events[3] == {**events[3], "stage": "base", "step": 2, "total": 10, "loss": 2.5, "learning_rate": 1e-3}
    assert list(read_events(tmp_path)) == events


@given(cut=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_a_line_that_a_kill_cut_off_spoils_no_other(cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torn")
    tell(build("jsonl"), folder)
    path = folder / "events.jsonl"
    whole = path.read_bytes()[:-cut]
    path.write_bytes(whole)
    complete = whole.count(b"\n")
    tell(build("jsonl"), folder)
    events = list(read_events(folder))
    # What was cut right before its line's end is whole all the same.
    assert len(events) in (complete + 11, complete + 12)
    assert [event["event"] for event in events[-11:]][0] == "run-start"


def test_what_was_written_before_a_checkpoint_is_on_disk_at_once(tmp_path):
    tracker = build("jsonl")
    tell(tracker, tmp_path, end=False)  # killed: never closed
    assert [event["step"] for event in read_events(tmp_path) if event["event"] == "step"] == [1, 2, 3, 4, 5]


def test_steps_can_be_thinned_out_but_the_last_is_kept(tmp_path):
    tracker, told = build("jsonl", every=4), stages()
    tracker.open(tmp_path, RECIPE, told)
    for step in range(1, 11):
        tracker.step(told[0], step, 10, {"loss": 1.0})
    tracker.close(told)
    assert [event["step"] for event in read_events(tmp_path) if event["event"] == "step"] == [4, 8, 10]


def test_the_page_is_whole_self_contained_and_says_everything(tmp_path):
    tell(build("html"), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert not [a for _, a in tags.found for n in ("src", "srcset") if n in a]
    assert all(a["href"].startswith("#") for _, a in tags.found if a.get("href"))  # type: ignore[union-attr]
    assert "http" not in page.replace("http-equiv", "") and "@import" not in page and "<script" not in page
    assert "prefers-color-scheme: dark" in page and 'lang="en"' in page
    for said in ("a run", "pretrain", "1 min 15 s", "not reached", "3 documents were <left> out & counted", "1.23M"):
        assert said in tags.text, said
    drawn = [a["aria-label"] for tag, a in tags.found if tag == "svg"]
    assert drawn == ["loss: from 5 to 1", "learning rate: from 1.0e-03 to 1.0e-03"]
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"], "something half-written was left behind"


def test_the_page_reloads_itself_only_while_the_run_goes_on(tmp_path):
    tracker = build("html", seconds=1e-9)
    tell(tracker, tmp_path, end=False)
    assert 'http-equiv="refresh"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    tracker.close(stages())
    assert 'http-equiv="refresh"' not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_is_not_written_at_every_step(tmp_path):
    tell(build("html", seconds=3600.0), tmp_path, end=False)
    assert not (tmp_path / "report.html").exists()


def test_after_a_kill_the_curve_is_one_and_holds_the_second_try(tmp_path):
    """Steps 4 and 5 were lost with the kill and are made again from the checkpoint at 3."""
    jsonl = build("jsonl")
    tell(jsonl, tmp_path, steps=5, end=False)
    del jsonl
    told, html, again = stages(), build("html"), build("jsonl")
    for tracker in (again, html):
        tracker.open(tmp_path, RECIPE, told)
        tracker.stage_start(told[0], resumed_from=3)
    for step in (4, 5, 6):
        for tracker in (again, html):
            tracker.step(told[0], step, 10, {"loss": 100.0 + step})
    for tracker in (again, html):
        tracker.close(told)
    expected = [(1, 5.0), (2, 2.5), (3, 5 / 3), (4, 104.0), (5, 105.0), (6, 106.0)]
    assert html.curves["base"]["loss"] == expected  # type: ignore[attr-defined]
    later = build("html")
    later.open(tmp_path, RECIPE, told)
    assert later.curves["base"]["loss"] == expected  # type: ignore[attr-defined]


curve = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.floats(-1e-6, 1e-6), st.sampled_from([0.0, float("nan"), float("inf"), 3.0])),
    min_size=0,
    max_size=30,
)


@given(curve, st.text(max_size=20), st.integers(1, 60))
@settings(max_examples=80, deadline=None)
def test_any_curve_is_drawn_inside_its_frame_and_any_text_is_escaped(values, name, repeat):
    points = [(i + 1, y) for i, y in enumerate(values * repeat)]
    told = [StageSummary("base", name, status="done", notes=[name], figures={name: 1.0})]
    tags = Tags(render(name, told, {"base": {"loss": points}}, running=False))
    for tag, attributes in tags.found:
        if tag == "path":
            numbers = [float(x) for x in re.findall(r"-?[\d.]+", str(attributes["d"]))]
            assert all(0 <= x <= WIDTH for x in numbers[0::2]) and all(0 <= y <= HEIGHT for y in numbers[1::2])
            assert len(numbers) <= 2 * 400 + 2
    finite = [y for y in values if abs(y) < float("inf")] * repeat
    assert sum(tag == "svg" for tag, _ in tags.found) == (len(finite) > 1)


def test_a_long_curve_is_thinned_out_and_ends_where_it_ends():
    points = [(step, 1 / step) for step in range(1, 5001)]
    page = render("x", [StageSummary("base", "pretrain")], {"base": {"loss": points}}, running=False)
    (path,) = [a["d"] for tag, a in Tags(page).found if tag == "path"]
    assert 200 <= str(path).count("L") < 400
    assert "loss: from 1 to 2.0e-04" in page and "step 5000" in page
    assert len(page) < 20_000


def test_links_lead_to_sections_and_figures_beyond_the_tables_are_folded_away():
    few, many = {"loss": 1.0}, {f"figure {i}": float(i) for i in range(9)}
    told = [StageSummary("few", "a", figures=few), StageSummary("many", "b", figures=many)]
    tags = Tags(render("x", told, {}, running=False))
    assert [a["href"] for _, a in tags.found if "href" in a] == ["#many"]
    assert [a["id"] for _, a in tags.found if "id" in a] == ["many"]
    assert tags.text.count("figure 8") == 1 and tags.text.count("figure 1") == 2


def test_the_page_is_a_pure_function():
    told = stages()
    told[0].figures = {"loss": 1.0}
    curves = {"base": {"loss": [(1, 2.0), (2, 1.0)]}}
    assert render("x", told, curves, False) == render("x", told, curves, False)
    assert curves == {"base": {"loss": [(1, 2.0), (2, 1.0)]}}


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("tokens", 1_234_567, "1.23M"),
        ("tokens", 12_345, "12.3k"),
        ("steps", 293, "293"),
        ("loss", 5.14712, "5.147"),
        ("learning_rate", 5e-4, "5.0e-04"),
        ("margin", -2.7e-4, "-2.7e-04"),
        ("loss", float("nan"), "nan"),
        ("zero", 0.0, "0"),
    ],
)
def test_figures_are_short(name, value, read):
    assert number(name, value) == read


@pytest.mark.parametrize(
    ("seconds", "read"), [(4.25, "4.2 s"), (75, "1 min 15 s"), (7_500, "2 h 05 min"), (59.99, "60.0 s")]
)
def test_times_are_read_as_people_say_them(seconds, read):
    assert duration(seconds) == read


def test_the_most_telling_figures_come_first():
    figures = {"gradient_norm": 1.0, "steps": 3.0, "accuracy": 0.5, "loss": 2.0}
    assert line(figures) == "loss 2, accuracy 0.5, steps 3, gradient norm 1"
    assert line(figures, 2) == "loss 2, accuracy 0.5"
