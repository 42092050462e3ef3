"""A conformance run as one self-contained page: part × property for each kind, and the failures in full."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from corelm.conformance.report import explain, told

if TYPE_CHECKING:
    from corelm.conformance.report import Report
    from corelm.conformance.running import Outcome

MARKS: Final = {"passed": "✓", "failed": "✗", "expected-failed": "!", "not-applicable": "·", "blocked": "–"}

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2126;--dim:#626a73;--back:#fff;--line:#d9dde2;--good:#cfead2;--bad:#f3a59c;
--odd:#f5dd9a;--none:#f1f3f5;--stop:#d5d9de;--said:#fbeae8}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ea;--dim:#9aa3ad;--back:#16191d;--line:#363c44;--good:#23502b;
--bad:#9c2f24;--odd:#7a5c12;--none:#1e2227;--stop:#3a4049;--said:#35201e}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:84rem;margin:2rem auto;
padding:0 1.2rem}
h1{margin:0 0 .2rem}h2{margin:2.2rem 0 .2rem;font-size:1.15rem}.dim{color:var(--dim)}a{color:inherit}
.sum{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0;padding:0;list-style:none}
.sum li{padding:.35rem .8rem;border-radius:.4rem}.applicable,.run{background:var(--none)}
nav{display:flex;flex-wrap:wrap;gap:.3rem;margin:1rem 0}nav a{padding:0 .55rem;border-radius:.3rem;text-decoration:none}
.sum b{font-size:1.25rem;margin-right:.35rem}
pre{background:var(--said);border-left:4px solid var(--bad);padding:.8rem 1rem;overflow:auto;white-space:pre-wrap}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}
th{font-weight:500;text-align:left;white-space:nowrap}tbody th{padding:0 .8rem 0 0}
thead th{height:13rem;vertical-align:bottom;padding:0;min-width:1.55rem;max-width:1.55rem}
thead th span{display:block;writing-mode:vertical-rl;transform:rotate(180deg);margin:0 auto .3rem;line-height:1.55rem}
thead th.own span{font-weight:700}
td{text-align:center;width:1.55rem;height:1.45rem;padding:0;border:1px solid var(--back);cursor:default}
td a{display:block;text-decoration:none}
td.figure{width:auto;white-space:nowrap;text-align:right;padding:0 .5rem;font-variant-numeric:tabular-nums}
.passed{background:var(--good)}.failed{background:var(--bad);font-weight:700}.expected-failed{background:var(--odd)}
.not-applicable{background:var(--none);color:var(--dim)}.blocked{background:var(--stop)}
:target{outline:2px solid var(--bad)}
"""


def page(report: Report) -> str:
    """One self-contained HTML page; it needs neither scripts nor a network."""
    verdict = "All is well." if report.ok else "Not all is well."
    seconds = sum(outcome.seconds for outcome in report.outcomes)
    examples = sum(outcome.ran for outcome in report.outcomes)
    counts = "".join(
        f'<li class="{name if number else "run"}"><b>{number}</b>{name}</li>'
        for name, number in report.counts.items()
    )
    kinds: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        kinds.setdefault(outcome.kind, []).append(outcome)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>corelm verify</title>'
        f"<style>{_STYLE}</style><h1>Conformance</h1><p>{verdict} <span class=dim>Parts: {len(report.by_part)}, "
        f"kinds: {len(kinds)}, examples: {examples:,}, seconds: {seconds:,.0f}. "
        f"Rest on a cell to read what it says; those that failed lead to the details.</span></p>"
        f"<ul class=sum>{counts}</ul><nav>{''.join(map(_link, kinds.items()))}</nav>"
        f"{''.join(_said(text) for text in (*map(told, report.plugins), *report.short))}"
        f"{''.join(_failure(outcome) for outcome in report.failures)}"
        f"{''.join(_matrix(kind, outcomes) for kind, outcomes in kinds.items())}{_expected(report)}</html>\n"
    )


def _link(item: tuple[str, list[Outcome]]) -> str:
    """A kind, in the colour of the worst that was found in it."""
    kind, outcomes = item
    found = {outcome.status for outcome in outcomes}
    worst = next((status for status in ("failed", "blocked", "expected-failed") if status in found), "passed")
    name = html.escape(kind, quote=True)
    return f'<a class="{worst}" href="#kind-{name}">{name}</a>'


def _said(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def _anchor(outcome: Outcome) -> str:
    return html.escape(f"{outcome.part}::{outcome.prop.name}", quote=True)


def _failure(outcome: Outcome) -> str:
    return f'<pre id="{_anchor(outcome)}">{html.escape(explain(outcome))}</pre>'


def _expected(report: Report) -> str:
    """Why some failures are expected."""
    rows = [
        f'<li id="{_anchor(o)}">{html.escape(f"{o.part} fails {o.prop.name}: {o.reason}")}</li>'
        for o in report.outcomes
        if o.status == "expected-failed"
    ]
    return f"<h2>Expected failures</h2><ul>{''.join(rows)}</ul>" if rows else ""


def _matrix(kind: str, outcomes: list[Outcome]) -> str:
    """Parts of one kind against all properties; the kind's own ones in bold behind those of every kind."""
    laws = {outcome.prop.name: outcome.prop for outcome in outcomes}
    ordered = sorted(laws.values(), key=lambda prop: (not prop.first, prop.kind != "*"))
    head = "".join(
        f'<th class="{"own" if prop.kind != "*" else "all"}" title="{html.escape(prop.statement, quote=True)}">'
        f"<span>{html.escape(prop.name)}</span></th>"
        for prop in ordered
    )
    rows = []
    for part in dict.fromkeys(outcome.part for outcome in outcomes):
        mine = {outcome.prop.name: outcome for outcome in outcomes if outcome.part == part}
        some = next(iter(mine.values()))
        cells = "".join(_cell(mine.get(prop.name)) for prop in ordered)
        figures = f"<td class=figure>{sum(o.ran for o in mine.values()):,}</td>"
        figures += f"<td class=figure>{sum(o.seconds for o in mine.values()):.1f} s</td>"
        name = html.escape(part.partition("/")[2])
        rows.append(f'<tr><th title="{html.escape(some.origin, quote=True)}">{name}</th>{cells}{figures}</tr>')
    return (
        f'<h2 id="kind-{html.escape(kind, quote=True)}">{html.escape(kind)}</h2><div class=wide><table><thead><tr><th></th>'
        f"{head}<th><span>examples</span></th><th><span>time</span></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "<td></td>"
    said = f"{outcome.part} :: {outcome.prop.name}\n{outcome.status.replace('-', ' ')}"
    said += f": {outcome.reason}" if outcome.reason else ""
    said += f"\n{outcome.prop.statement}"
    said += f"\n{outcome.ran} examples, {outcome.seconds:.2f} s" if outcome.ran else ""
    mark = MARKS[outcome.status]
    if outcome.status in ("failed", "expected-failed"):
        mark = f'<a href="#{_anchor(outcome)}">{mark}</a>'
    return f'<td class="{outcome.status}" title="{html.escape(said, quote=True)}">{mark}</td>'
