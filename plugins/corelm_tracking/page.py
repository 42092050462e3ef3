"""The page of a run, as a pure function of what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from corelm.kinds import StageSummary
from corelm_tracking.figures import duration, line, number

Points = list[tuple[int, float]]
Curves = dict[str, Points]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 290, 170, 50, 26, 22
MOST_POINTS = 400
IN_TABLE = 6
"""Figures of a stage that the table shows; the rest is folded away in the stage's section."""

DRAWN = ("loss", "accuracy", "reward", "margin", "kl", "learning_rate", "gradient_norm", "relative_error")

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --rule: #d9dee7; --paper: #ffffff; --card: #f6f8fb;
  --line: #2563eb; --good: #15803d; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --rule: #323a48; --paper: #12161d;
  --card: #1a202a; --line: #7aa2ff; --good: #4ade80; --bad: #f87171; } }
body { margin: 2rem auto; max-width: 1100px; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
a { color: var(--line); } h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p.soft, .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } .time { white-space: nowrap; text-align: right; }
td:last-child { overflow-wrap: anywhere; padding-right: 0; }
.done { color: var(--good); } .failed, .stopped { color: var(--bad); }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(max(235px, 30%), 1fr));
  gap: .8rem; margin-bottom: .6rem; }
figure { margin: 0; max-width: 400px; background: var(--card); border-radius: 8px; padding: .4rem; }
svg { display: block; width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .title { fill: var(--ink); font-weight: 600; } svg .grid { stroke: var(--rule); }
svg .curve { fill: none; stroke: var(--line); stroke-width: 1.6; stroke-linejoin: round; }
svg .end { fill: var(--line); }
ul { margin: .3rem 0; padding-left: 1.2rem; } li { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def render(name: str, stages: Sequence[StageSummary], curves: Mapping[str, Curves], running: bool) -> str:
    """The whole page; ``running`` lets it reload itself."""
    reload = '<meta http-equiv="refresh" content="10">' if running else ""
    total = sum(stage.seconds for stage in stages)
    done = sum(stage.status in ("done", "resumed", "up to date") for stage in stages)
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{reload}',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(name)}</title><style>{STYLE}</style></head><body><h1>{escape(name)}</h1>",
        f'<p class="soft">{done} of {len(stages)} stages done, {duration(total)}{", running" if running else ""}</p>',
    ]
    sections = {stage.name: _section(stage, curves.get(stage.name, {})) for stage in stages}
    parts += [_table(stages, sections), *sections.values()]
    return "\n".join([*(part for part in parts if part), "</body></html>\n"])


def _table(stages: Sequence[StageSummary], sections: Mapping[str, str]) -> str:
    """One row per stage; its name leads to its section where it has one."""
    rows = [
        f"<tr><td>{_link(s.name) if sections[s.name] else escape(s.name)}</td><td>{escape(s.use)}</td>"
        f'<td class="{escape(_class(s.status))}">{escape(s.status or "not reached")}</td>'
        f'<td class="time">{duration(s.seconds) if s.seconds else ""}</td><td>{escape(line(s.figures, IN_TABLE))}</td></tr>'
        for s in stages
    ]
    head = '<tr><th>stage</th><th>part</th><th>status</th><th class="time">time</th><th>figures</th></tr>'
    return f"<table>{head}{''.join(rows)}</table>"


def _link(name: str) -> str:
    return f'<a href="#{escape(name)}">{escape(name)}</a>'


def _class(status: str) -> str:
    return "done" if status in ("done", "resumed", "up to date") else status


def _section(stage: StageSummary, curves: Curves) -> str:
    drawn = [_chart(name, curves[name]) for name in DRAWN if len(curves.get(name, [])) > 1]
    notes = "".join(f"<li>{escape(note)}</li>" for note in stage.notes)
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{escape(number(name, value))}</td></tr>"
        for name, value in (stage.figures.items() if len(stage.figures) > IN_TABLE else ())
    )
    if not (drawn or notes or rows):
        return ""
    reason = f' <span class="soft">{escape(stage.reason)}</span>' if stage.reason else ""
    body = f'<div class="curves">{"".join(drawn)}</div>' if drawn else ""
    body += f"<ul>{notes}</ul>" if notes else ""
    body += f"<details><summary class='soft'>all figures</summary><table>{rows}</table></details>" if rows else ""
    title = f'{escape(stage.name)} <span class="soft">{escape(stage.use)}</span>{reason}'
    return f'<h2 id="{escape(stage.name)}">{title}</h2>{body}'


def _chart(name: str, points: Points) -> str:
    """One curve as SVG, with round ticks and its last value."""
    points = _thinned([point for point in points if math.isfinite(point[1])])
    if len(points) < 2:
        return ""
    low, high = min(y for _, y in points), max(y for _, y in points)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = points[0][0], points[-1][0]

    def x_of(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - 14)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    path = " ".join(f"{'M' if i == 0 else 'L'}{x_of(x):.1f} {y_of(y):.1f}" for i, (x, y) in enumerate(points))
    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 14}" y1="{y_of(t):.1f}" y2="{y_of(t):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y_of(t) + 4:.1f}" text-anchor="end">{escape(number("", t))}</text>'
        for t in ticks
    )
    title = escape(name.replace("_", " "))
    end = escape(number(name, points[-1][1]))
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}: from {escape(number(name, points[0][1]))} to {end}">'
        f'<text class="title" x="{LEFT}" y="14">{title}</text>'
        f'<text x="{WIDTH - 14}" y="14" text-anchor="end">{end}</text>{grid}<path class="curve" d="{path}"/>'
        f'<circle class="end" cx="{x_of(last):.1f}" cy="{y_of(points[-1][1]):.1f}" r="2.6"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{first}</text>'
        f'<text x="{WIDTH - 14}" y="{HEIGHT - 8}" text-anchor="end">step {last}</text></svg></figure>'
    )


def _thinned(points: Points) -> Points:
    """About so many points, each the mean of its neighbourhood; the first and the last one stay."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    means = [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
    return [points[0], *means[:-1], points[-1]]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers around a range."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    start = math.floor(low / step) * step
    count = math.ceil((high - start) / step - 1e-9)
    return [start + step * n for n in range(count + 1)]
