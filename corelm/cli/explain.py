"""``corelm explain``: where each value of a recipe came from."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  corelm explain recipe.yaml
  corelm explain recipe.yaml model.attention
  corelm explain recipe.yaml stages.base.optimizer --set stages.base.optimizer.learning_rate=1e-3
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "explain",
        help="where each value of a recipe came from",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe")
    parser.add_argument("path", nargs="?", help="only what is at or below this path")
    parser.add_argument("--set", action="append", default=[], metavar="path=value", help="an override")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line per value."""
    from corelm.recipe.reader import Recipe

    print("\n".join(Recipe.read(args.recipe, overrides=args.set).explain(args.path)))
    return 0
