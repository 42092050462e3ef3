"""``corelm compare``: metrics of several runs side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EPILOG = """examples:
  corelm compare runs/narrow runs/wide
  corelm compare runs/narrow runs/wide --json     figures and metrics by run, for scripts
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "compare",
        help="metrics of several runs side by side",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", metavar="run", nargs="+", help="a run's folder, e.g. runs/quickstart")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read what the runs say about themselves."""
    from corelm.cli.report import run_folder

    folders = [run_folder(text) for text in dict.fromkeys(args.folders)]
    rows = table([numbers(folder) for folder in folders])
    if args.json:
        print(json.dumps({str(folder): numbers(folder) for folder in folders}, indent=1))
    else:
        print(render([str(folder) for folder in folders], rows))
    return 0


def numbers(folder: Path) -> dict[str, float]:
    """Every figure and metric of a run: ``stage/figure``, and ``stage/model/task/metric`` where one was measured."""
    from corelm.pipeline.ledger import read_run

    _, stages, metrics = read_run(folder)
    found: dict[str, float] = {}
    for stage in stages:
        measured = _flat(metrics.get(stage.name, {}), stage.name)
        found |= measured or {f"{stage.name}/{name}": value for name, value in stage.figures.items()}
        if stage.figures or measured:
            found[f"{stage.name}/seconds"] = stage.seconds
    return found


def _flat(value: Any, path: str) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {key: number for name, item in value.items() for key, number in _flat(item, f"{path}/{name}").items()}
    return {path: float(value)} if isinstance(value, int | float) else {}


def table(runs: Sequence[Mapping[str, float]]) -> list[tuple[str, list[float | None]]]:
    """One row per name that any run has, in the order in which they come."""
    names = dict.fromkeys(name for found in runs for name in found)
    return [(name, [found.get(name) for found in runs]) for name in names]


def render(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """As people read it; a dash where a run has no such number."""
    cells = [["", *titles], *([name, *map(_number, values)] for name, values in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles) + 1)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in cells
    )


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.4g}"
