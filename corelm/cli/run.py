"""``corelm run``: run a recipe."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

EPILOG = """examples:
  corelm run recipes/quickstart.yaml                      the whole pipeline; run it again to go on or to see it is up to date
  corelm run corelm:quickstart --out /data/runs           a recipe that came with the package
  corelm run my.yaml model.dim=128 stages.base.tokens=2M  with values of your own laid over the recipe
  corelm run my.yaml --redo base                          make a stage again, and what depends on it
  corelm run my.yaml --redo changed                       make again what other code has made
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "run", help="run a recipe", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a YAML file, or PACKAGE:NAME for a recipe that came with a package")
    parser.add_argument("overrides", nargs="*", default=[], metavar="path=value", help="values laid over the recipe")
    parser.add_argument("--out", help="folder of the runs (default: the recipe's `out`, or runs)")
    parser.add_argument("--redo", action="append", default=[], metavar="STAGE", help="a stage's name, or `changed`")
    parser.add_argument("--json", action="store_true", help="print the summaries as JSON at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from corelm.cli.plugins import warn_of_failures
    from corelm.pipeline.processes import leads
    from corelm.pipeline.runner import run as run_recipe
    from corelm.registration import active

    if leads():
        warn_of_failures(active(), sys.stderr)
    result = run_recipe(args.recipe, args.out, redo=args.redo, overrides=args.overrides)
    if args.json and leads():
        print(json.dumps({"folder": str(result.folder), "stages": [vars(stage) for stage in result.stages]}))
    return 0
