"""``corelm report``: what a run did, from its folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

EPILOG = """examples:
  corelm report runs/quickstart            the table of stages; rebuilds the page with the curves
  corelm report runs/quickstart --json     everything, for scripts
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "report", help="what a run did", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="run", help="a run's folder, e.g. runs/quickstart")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the ledgers; tell the trackers as the run itself does."""
    from corelm.kinds.component import Spec
    from corelm.pipeline.ledger import read_run

    folder = run_folder(args.folder)
    recipe, stages, metrics = read_run(folder)
    if args.json:
        print(
            json.dumps({"recipe": recipe, "stages": [vars(stage) for stage in stages], "metrics": metrics}, indent=1)
        )
        return 0
    for chosen in recipe["trackers"]:
        if chosen["use"] == "jsonl":
            continue
        tracker = Spec.read("tracker", chosen).build()
        tracker.open(folder, recipe, stages)
        tracker.close(stages)
    return 0


def run_folder(path: str) -> Path:
    """The folder of a run.

    Raises:
        UserError: there is none; the message names those nearby.
    """
    from corelm.errors import UserError

    folder = Path(path)
    if (folder / "recipe.json").is_file():
        return folder
    near = sorted(str(found.parent) for found in [*folder.glob("*/recipe.json"), *folder.parent.glob("recipe.json")])
    remedy = f"Runs: {', '.join(near[:8])}" if near else "Name one, e.g. runs/quickstart."
    raise UserError(f"{folder} is no run's folder (it has no recipe.json)", remedy=remedy, code="no-run")
