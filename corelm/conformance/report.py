"""What came out of a conformance run, as text and as plain data; ``page`` makes a page of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from corelm.conformance.minimum import shortfall
from corelm.conformance.running import Outcome
from corelm.conformance.sequence import properties
from corelm.registration import Failure

CONDUCT: Final = "Whatever is tested, a part ends, takes little memory, prints nothing, leaves the process as it was."


def explain(outcome: Outcome) -> str:
    """One failure in full: part, law, what happened, the smallest example, the likely cause, how to repeat it."""
    prop, found = outcome.prop, outcome.reason.replace("\n", f"\n{'':16}")
    whose = f" ({outcome.origin})" if outcome.origin else ""
    lines = [f"{outcome.part}{whose} fails {prop.name}"]
    lines += [f"  law:          {CONDUCT if outcome.conduct else prop.statement}"]
    lines += [f"  formula:      {prop.formula}"] if prop.formula and not outcome.conduct else []
    lines += [f"  found:        {found}"]
    lines += [f"  bound:        {prop.tolerance}"] if prop.tolerance and not outcome.conduct else []
    for index, (label, value) in enumerate(outcome.story):
        lines.append(f"  {'smallest' if index == 0 else '':<12}  {label} = {value}")
    if not outcome.conduct:
        lines.append(f"  likely cause: {prop.catches}")
        lines += [f"  seen before:  {prop.seen}"] if prop.seen else []
    lines.append(f"  repeat:       {outcome.reproduce}")
    return "\n".join(lines)


def told(failure: Failure) -> str:
    """A plugin that could not be loaded, in one sentence."""
    return f"plugin {failure.plugin} ({failure.distribution} {failure.version}) failed to load: {failure.reason}"


def count(statuses: Counter[str]) -> dict[str, int]:
    """How many were applicable, run, passed, failed, expected to fail, not applicable, blocked."""
    applicable = statuses.total() - statuses["not-applicable"]
    return {
        "applicable": applicable,
        "run": applicable - statuses["blocked"],
        **{s: statuses[s] for s in ("passed", "failed", "expected-failed", "not-applicable", "blocked")},
    }


def shown(counts: dict[str, int]) -> str:
    """Counts in one line."""
    return "  ".join(f"{number} {name}" for name, number in counts.items())


@dataclass
class Report:
    """All outcomes of a run.

    Attributes:
        outcomes: one per part and property, in order.
        plugins: those that could not be loaded, of those that were meant.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    plugins: list[Failure] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many were applicable, run, passed, failed, expected to fail, not applicable, blocked."""
        return count(Counter(outcome.status for outcome in self.outcomes))

    @property
    def failures(self) -> list[Outcome]:
        """The outcomes that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def by_part(self) -> dict[str, list[Outcome]]:
        """The outcomes of each part."""
        found: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            found.setdefault(outcome.part, []).append(outcome)
        return found

    @property
    def short(self) -> list[str]:
        """Parts of which too little was tested, in words; those that were held to a selection only are left out."""
        found = []
        for part, outcomes in self.by_part.items():
            kind = outcomes[0].kind
            own = {o.prop.name: o.status for o in outcomes if o.prop.kind != "*"}
            whole = {prop.name for prop in properties(kind) if prop.kind != "*"} <= own.keys() if kind else False
            if whole and not any(outcome.status == "failed" for outcome in outcomes):
                found.append(shortfall(part, kind, own))
        return [text for text in found if text]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, every plugin could be loaded, and enough was run."""
        return not self.failures and not self.plugins and not self.short and self.counts["run"] > 0

    def data(self) -> dict[str, Any]:
        """Plain data for scripts."""
        return {
            "ok": self.ok,
            "counts": self.counts,
            "failed_plugins": [vars(failure) for failure in self.plugins],
            "short": self.short,
            "outcomes": [
                {
                    "part": outcome.part,
                    "from": outcome.origin,
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
        blocks = [told(failure) for failure in self.plugins] + [explain(outcome) for outcome in self.failures]
        blocks += [
            f"{o.part} fails {o.prop.name} as expected: {o.reason}"
            for o in self.outcomes
            if o.status == "expected-failed"
        ]
        blocks += [f"too little was tested: {text}" for text in self.short]
        rows = []
        for part, outcomes in self.by_part.items():
            mine = {name: number for name, number in Report(outcomes).counts.items() if number}
            rows.append(f"{part:<36} {shown(mine)}  {sum(o.seconds for o in outcomes):.1f} s")
        verdict = "all is well" if self.ok else "not all is well" if self.outcomes or blocks else "nothing was run"
        table = "\n".join(rows)
        return "\n\n".join(text for text in (*blocks, table, f"{shown(self.counts)}: {verdict}") if text)

    def write(self, path: Path) -> None:
        """Write the page."""
        from corelm.conformance.page import page

        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(self), encoding="utf-8")
