"""``corelm validate``: check a recipe without running it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

EPILOG = """examples:
  corelm validate recipe.yaml
  corelm validate recipe.yaml model.attention.heads=12
  corelm validate recipe.yaml --json        problems with code, path, line and column
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "validate",
        help="check a recipe without running it",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", default=[], metavar="path=value")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read it; what is wrong is raised."""
    from corelm.cli.plugins import warn_of_failures
    from corelm.recipe.reader import Recipe
    from corelm.registration import active

    warn_of_failures(active(), sys.stderr)
    recipe = Recipe.read(args.recipe, overrides=args.overrides)
    stages = ", ".join(recipe.config.stages) or "none"
    print(json.dumps([]) if args.json else f"{args.recipe} is valid; stages: {stages}")
    return 0
