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
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"{target} is no name of a recipe", remedy="Give a file that ends in .yaml.", code="not-yaml")
    try:
        source, _ = locate(args.source, Path())
        text = source.read_text(encoding="utf-8")
    except LookupError as error:
        raise UserError(str(error), code="recipe-missing") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        remedy = "Name a recipe, such as corelm:quickstart."
        raise UserError(f"{args.source} can't be read: {reason}", remedy=remedy, code="recipe-missing") from None
    schema = target.with_name("corelm.schema.json")
    write_schema(schema)
    write_atomic(target, f"# yaml-language-server: $schema={schema.name}\n{text}")
    print(f"wrote {target} and {schema} (from which your editor completes)\nnext: corelm run {target}")
    return 0
