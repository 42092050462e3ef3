"""The page about properties: what each says, what its failure means, how exactly it holds, what it has caught."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import catches_page
from introductions import KINDS

from corelm.conformance.framework import Property
from corelm.conformance.planted import PlantedBug, planted_bugs
from corelm.conformance.selection import properties
from corelm.registration import active

PAGE = Path(__file__).with_name("properties.md")
TIERS = {
    "bit": "equal to the last bit",
    "f64": "in float64, equal but for its rounding",
    "num": "in low precision, within its rounding errors of the float64 run",
    "stat": "in the mean over many draws",
    "io": "no arithmetic: what is declared, written or refused",
}
BEGINNING = """# The properties

Written by `python docs/make.py` from the properties' own words and from what the [planted bugs](catches.md) showed.

A *property* is a law that every part of a kind obeys, whatever it computes. It needs no expected output: an attention whose
result up to token t changes when token t + 1 does is wrong, whichever attention it is. The kit draws a config from the
part's own schema and inputs that hurt, computes both sides of the law, and compares. [How to run it](conformance.md).

Each entry says the law in words and, where that helps, in signs; what is likely wrong where it fails, with a public case
where one is known; how exactly it holds; how many examples are drawn; and which planted bugs it catches, those that it
is meant for first.

| how exactly | |
| --- | --- |
{tiers}

A float64 part agrees with itself to ten digits or so, so that laws in float64 need no tuned bound; where a law's bound is
another one, the entry says why.

**How many examples.** Each planted bug is held to the property meant for it under {seeds} seeds, and the share p of
examples that show it is measured. A bug that shows in p of them slips through n with probability (1 − p)ⁿ
(through n + 1 where the first example, always the simplest, never shows it). A property draws at least as many as let its
weakest bug slip through less than once in {often:,} runs. Cheap ones draw more, for a new bug may hide where no planted one
does; those that train, start processes or look at one fixed thing draw no more than that.
"""
SHARED = """Laws of every kind come first: a part can be imported, built, saved, repeated, differentiated, and says the truth
about itself. Some of them all others wait for: what can't be built would fail everything."""


def page() -> str:
    """The page as it should be."""
    tiers = "\n".join(f"| {name} | {meaning} |" for name, meaning in TIERS.items())
    words = {"seeds": catches_page.SEEDS, "often": round(1 / catches_page.MISSED)}
    results = catches_page.read()
    bugs = {(bug.kind, bug.name): bug for bug in planted_bugs()}
    kinds = [name for name, kind in sorted(active().kinds.items()) if kind.distribution == "corelm"]
    shared = [prop for prop in properties(kinds[0]) if prop.kind == "*"]
    links = "Kinds: " + ", ".join(f"[{kind}](#{kind})" for kind in ("every kind", *kinds)).replace(
        "(#every kind)", "(#every-kind)"
    )
    parts = [BEGINNING.format(tiers=tiers, **words), f"{links}.\n", f"## Every kind\n\n{SHARED}\n"]
    parts += [_entry(prop, results, bugs) for prop in shared]
    for kind in kinds:
        parts.append(f"## {kind}\n\n{KINDS[kind]}\n")
        parts += [_entry(prop, results, bugs) for prop in properties(kind) if prop.kind == kind]
    return "\n".join(parts)


def _entry(prop: Property, results: Mapping[str, Any], bugs: Mapping[tuple[str, str], PlantedBug]) -> str:
    lines = [prop.statement]
    if prop.formula:
        lines += ["", f"    {prop.formula}"]
    seen = f" Seen: {catches_page.linked(prop.seen)}." if prop.seen else ""
    lines += ["", f"- Where it fails: {prop.catches}.{seen}"]
    lines.append(
        f"- How exactly: {prop.tier}{f'; {prop.tolerance}' if prop.tolerance else ''}. {_examples(prop, results)}"
    )
    found = [bugs[key] for key in catches_page.caught(prop, results) if key in bugs]
    if found:
        lines.append(f"- Catches {_listed(prop, found)}.")
    return f"### `{prop.name}`\n\n" + "\n".join(lines) + "\n"


def _examples(prop: Property, results: Mapping[str, Any]) -> str:
    number = "One example" if prop.examples == 1 else f"{prop.examples} examples"
    weakest = catches_page.weakest(prop, results)
    if weakest is None or catches_page.needed(weakest) == 1:
        return f"{number}."
    missed = catches_page.missed(weakest, prop.examples)
    slips = f"slips through once in {1 / missed:,.0f} runs" if missed > 1e-9 else "practically never slips through"
    return (
        f"{number}; its weakest bug shows in {catches_page.share(catches_page.power(weakest))} of them and {slips}."
    )


def _listed(prop: Property, found: list[PlantedBug]) -> str:
    """Bugs by name and mistake where the property is meant for them, the others by name."""
    meant = [f"`{bug.name}` ({catches_page.said(bug).rstrip('.')})" for bug in found if bug.caught_by == prop.name]
    others = [f"`{bug.name}`" for bug in found if bug.caught_by != prop.name]
    more = ", ".join(others) if len(others) <= 8 else f"{', '.join(others[:8])} and {len(others) - 8} more"
    if not meant:
        return f"what others are meant for: {more}"
    return "; ".join(meant) + (f"; and also {more}" if others else "")
