"""``corelm schema``: JSON Schema of all installed parts, for editors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("schema", help="JSON Schema of all installed parts, for editors")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print or write it."""
    import json

    from corelm.recipe.json_schema import schema, write_schema

    if args.out is not None:
        write_schema(args.out)
        print(f"wrote {args.out}")
    else:
        print(json.dumps(schema(), indent=1))
    return 0
