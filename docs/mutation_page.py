"""The page about mutants: how many of each kind the conformance kit kills, and what survives."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs" / "mutation.json", ROOT / "docs" / "mutation.md"
UNSEEN = ROOT / "docs" / "mutation_unseen.json"
EQUIVALENT = ROOT / "tests" / "mutation" / "equivalent.yaml"
SURE = 1.959963984540054
"""Standard deviations to either side of the mean that 95 % of a normal distribution lie within."""
BEGINNING = """# Mutants

Written by `python docs/make.py` from what `python tests/mutation` measured and from `tests/mutation/equivalent.yaml`.

A *mutant* is a first-party part with one small change in its maths: `+` for `-`, `<` for `<=`, a constant off by one, an
axis moved, a `.detach()` dropped, a condition that always holds, a statement that is gone. Messages, refusals, schemas,
docstrings and types are left alone. The conformance kit *kills* a mutant if one of the properties of the part fails, with
their usual numbers of examples, within ten times the time that they usually take (what hangs is killed, too).

```
python tests/mutation                             every kind (hours on one core)
python tests/mutation norm router --mutants 60    two kinds, larger samples
python tests/mutation norm --survivors            those that survived, once more
```

Drawn are mutants of each part's own module, of the modules of its package that it uses, of its kind's interface and of
what the core computes for that kind: one of each module in turn, in it one of each function, in that one of each sort of
change. Each runs in a copy of a process in which everything is imported; the function that is changed gets the mutant's
code there, so that whoever calls it calls the mutant. Two properties are not asked: `same_in_a_fresh_process`, which
compares copies that all have the mutant, and `cheap_per_step`, which looks at the clock. Nearly all code of tokenizers
serves many of them: there only those properties of those parts are asked that call the function that is changed.

Some mutants compute the same as the original, or differ where only another machine would go. They are *equivalent*, each
for a reason given below, and don't count. *Rate* is killed out of the others, *interval* the 95 % interval of Wilson for
the rate over all mutants that could have been drawn.

What survived was looked at, and the laws were made stronger until it didn't. So these rates flatter the kit. How it
does on mutants that nobody has looked at is said under [Unseen](#unseen). First sweeps killed nothing (stages, which no
law ran) to 97%.
"""
AGAIN = """Another sample, judged once and before any law was made stronger for its sake:
`python tests/mutation KIND … --seed 1 --out docs/mutation_unseen.json`.
"""


def page() -> str:
    """The page as it should be."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    unseen = json.loads(UNSEEN.read_text(encoding="utf-8"))
    rates, again = f"## Rates\n\n{_rates(results)}", f"## Unseen\n\n{AGAIN}\n{_rates(unseen)}\n{_survivors(unseen)}"
    parts = [BEGINNING, rates, f"## Survivors\n\n{_survivors(results)}", again, _killers(results), _equivalents()]
    return "\n".join(part for part in parts if part)


def wilson(killed: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    share, slack = killed / of, SURE**2 / of
    middle = share + slack / 2
    width = math.sqrt(slack * share * (1 - share) + slack**2 / 4)
    return (middle - width) / (1 + slack), (middle + width) / (1 + slack)


def dead(figures: Mapping[str, Any]) -> int:
    """How many mutants of a kind were killed, those that hung included."""
    return int(sum(figures["killed"].values()) + figures["hung"])


def _rates(results: Mapping[str, Any]) -> str:
    head = "| kind | mutants | drawn | equivalent | killed | hung | survived | rate | interval |\n|" + " --- |" * 9
    rows = [_rate(kind, results[kind]) for kind in sorted(results)]
    names = ("available", "hung", "equivalent")
    total: dict[str, Any] = {name: sum(found[name] for found in results.values()) for name in names}
    total["killed"] = {"": sum(sum(found["killed"].values()) for found in results.values())}
    total["survivors"] = [survivor for found in results.values() for survivor in found["survivors"]]
    return "\n".join([head, *rows, _rate("all", total)]) + "\n"


def _rate(name: str, found: Mapping[str, Any]) -> str:
    killed, survived, equivalent = dead(found), len(found["survivors"]), found["equivalent"]
    judged = killed + survived
    low, high = wilson(killed, judged)
    share = f"{killed / judged:.0%}" if judged else "–"
    cells = [
        name,
        found["available"],
        judged + equivalent,
        equivalent,
        killed - found["hung"],
        found["hung"],
        survived,
    ]
    return "| " + " | ".join(map(str, [*cells, share, f"{low:.0%} – {high:.0%}"])) + " |"


def _survivors(results: Mapping[str, Any]) -> str:
    rows = [
        f"| {kind} | {entry['file']}:{entry['line']} | {_change(entry)} |"
        for kind in sorted(results)
        for entry in results[kind]["survivors"]
    ]
    return "\n".join(["| kind | place | change |", "| --- | --- | --- |", *rows] if rows else ["None."]) + "\n"


def _change(entry: Mapping[str, str]) -> str:
    """A statement before and after, as cells of a table take it."""
    before, after = (entry[name].replace("|", "\\|") for name in ("original", "mutated"))
    return f"`{before}` → `{after}`"


def _killers(results: Mapping[str, Any]) -> str:
    lines = [
        "## What kills\n",
        "The properties of each kind that noticed a mutant first, those that kill most asked first.\n",
    ]
    for kind in sorted(results):
        counts = Counter(results[kind]["killed"]).most_common()
        lines.append(
            f"- {kind}: "
            + ", ".join(f"`{name}` {count}" if name[0] != "(" else f"{name} {count}" for name, count in counts)
        )
    return "\n".join(lines) + "\n"


def _equivalents() -> str:
    entries: Sequence[Mapping[str, str]] = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or []
    rows = [f"| {e['file']}, `{e['function']}` | {_change(e)} | {' '.join(e['reason'].split())} |" for e in entries]
    return (
        "\n".join(["## Equivalent\n", "| place | change | why nothing differs |", "| --- | --- | --- |", *rows])
        + "\n"
    )
