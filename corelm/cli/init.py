"""``corelm init``: write a recipe to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("init", help="write a recipe to start from")
    parser.add_argument("file", nargs="?", default="recipe.yaml", help="default: recipe.yaml")
    parser.add_argument("--from", dest="source", default="corelm:quickstart", metavar="RECIPE", help="what to copy")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Copy a shipped recipe and the schema that editors read."""
    from corelm.errors import UserError
    from corelm.files import new_folder, write_atomic
    from corelm.recipe.json_schema import write_schema
    from corelm.recipe.layering import locate

    target = new_folder(args.file)
    try:
        source, _ = locate(args.source, Path())
    except LookupError as error:
        raise UserError(str(error), code="recipe-missing") from None
    schema = target.with_name("corelm.schema.json")
    write_schema(schema)
    modeline = f"# yaml-language-server: $schema={schema.name}\n"
    write_atomic(target, modeline + source.read_text(encoding="utf-8"))
    print(f"wrote {target} and {schema} (from which your editor completes)\nnext: corelm run {target}")
    return 0
