"""What came out of a conformance run, as text, as plain data and as one self-contained page."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corelm.conformance.running import Outcome


def explain(outcome: Outcome) -> str:
    """One failure in full: part, law, what happened, the smallest example, the likely cause, how to repeat it."""
    lines = [
        f"{outcome.part} fails {outcome.prop.name}",
        f"  law:          {outcome.prop.statement}",
        f"  found:        {outcome.reason}",
    ]
    for index, (label, value) in enumerate(outcome.story):
        lines.append(f"  {'smallest' if index == 0 else '':<12}  {label} = {value}")
    lines.append(f"  likely cause: {outcome.prop.catches}")
    lines.append(f"  repeat:       {outcome.reproduce}")
    return "\n".join(lines)


@dataclass
class Report:
    """All outcomes of a run.

    Attributes:
        outcomes: one per part and property, in order.
    """

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many were applicable, run, passed, failed, expected to fail, not applicable, blocked."""
        by = Counter(outcome.status for outcome in self.outcomes)
        applicable = len(self.outcomes) - by["not-applicable"]
        return {
            "applicable": applicable,
            "run": applicable - by["blocked"],
            "passed": by["passed"],
            "failed": by["failed"],
            "expected-failed": by["expected-failed"],
            "not-applicable": by["not-applicable"],
            "blocked": by["blocked"],
        }

    @property
    def failures(self) -> list[Outcome]:
        """The outcomes that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def ok(self) -> bool:
        """Whether nothing failed and something ran."""
        return not self.failures and self.counts["run"] > 0

    def data(self) -> dict[str, Any]:
        """Plain data for scripts."""
        return {
            "counts": self.counts,
            "outcomes": [
                {
                    "part": outcome.part,
                    "property": outcome.prop.name,
                    "status": outcome.status,
                    "reason": outcome.reason,
                    "story": [list(item) for item in outcome.story],
                    "examples": outcome.ran,
                    "seconds": round(outcome.seconds, 3),
                    "reproduce": outcome.reproduce,
                }
                for outcome in self.outcomes
            ],
        }

    def text(self) -> str:
        """Failures in full, then a table of the parts."""
        blocks = [explain(outcome) for outcome in self.failures]
        blocks += [
            f"{o.part} fails {o.prop.name} as expected: {o.reason}"
            for o in self.outcomes
            if o.status == "expected-failed"
        ]
        rows = []
        for part in dict.fromkeys(outcome.part for outcome in self.outcomes):
            mine = Report([outcome for outcome in self.outcomes if outcome.part == part])
            shown = "  ".join(f"{count} {name}" for name, count in mine.counts.items() if count)
            rows.append(f"{part:<36} {shown}  {sum(o.seconds for o in mine.outcomes):.1f} s")
        total = "  ".join(f"{count} {name}" for name, count in self.counts.items())
        return "\n".join(["\n\n".join(blocks), *([""] if blocks else []), *rows, "", total]).lstrip("\n")

    def page(self) -> str:
        """One self-contained HTML page."""
        total = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        failed = "".join(f"<pre>{html.escape(explain(outcome))}</pre>" for outcome in self.failures)
        sections = []
        for part in dict.fromkeys(outcome.part for outcome in self.outcomes):
            rows = "".join(_row(outcome) for outcome in self.outcomes if outcome.part == part)
            sections.append(f"<h2>{html.escape(part)}</h2><table>{rows}</table>")
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>corelm verify</title>'
            f"<style>{_STYLE}</style><h1>Conformance</h1><p>{total}</p>{failed}{''.join(sections)}</html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.page(), encoding="utf-8")


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td{padding:.2rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}"
    "pre{background:#fff3f0;border-left:4px solid #c33;padding:1rem;overflow:auto}"
    ".passed{color:#27632a}.failed{color:#b00020;font-weight:600}.expected-failed{color:#8a6100}"
    ".not-applicable,.blocked{color:#777}"
)


def _row(outcome: Outcome) -> str:
    said = outcome.prop.statement if outcome.status == "passed" else f"{outcome.prop.statement} — {outcome.reason}"
    return (
        f'<tr><td class="{outcome.status}">{outcome.status}</td><td>{html.escape(outcome.prop.name)}</td>'
        f"<td>{html.escape(said)}</td><td>{outcome.ran}</td></tr>"
    )
