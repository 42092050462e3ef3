"""``corelm list``: what is installed."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelm.registration import Record

EPILOG = """examples:
  corelm list                 every part, by kind
  corelm list attention       the parts of one kind
  corelm list --json          for scripts
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "list", help="what is installed", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", nargs="?", help="only this kind")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the records; imports no part."""
    from corelm.cli.describe import paper_facts
    from corelm.cli.plugins import warn_of_failures
    from corelm.kinds.papers import cited
    from corelm.registration import active

    registry = active()
    warn_of_failures(registry, sys.stderr)
    if args.kind is not None:
        registry.kind(args.kind)
    records = registry.parts(args.kind)
    if args.json:
        fields = ("kind", "name", "qualified", "distribution", "version", "summary", "target", "plugin", "interface")
        listed = [
            {**{name: getattr(record, name) for name in fields}, "papers": paper_facts(cited(_docstring(record)))}
            for record in records
        ]
        print(json.dumps(listed, indent=1))
        return 0
    width = max((len(record.name) for record in records), default=0)
    kind = None
    for record in records:
        if record.kind != kind:
            kind = record.kind
            print(f"{kind}: {registry.kinds[kind].summary}")
        origin = "" if record.distribution == "corelm" else f"  [{record.distribution} {record.version}]"
        print(f"  {record.name:<{width}}  {record.summary}{origin}")
    return 0


def _docstring(record: Record) -> str:
    """The docstring of a part's class, read off its file without importing it; '' where there is none to be found."""
    try:
        tree = ast.parse(Path(record.location).read_text(encoding="utf-8"))
    except (OSError, ImportError, SyntaxError, ValueError):
        return ""
    name = record.target.partition(":")[2]
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return (ast.get_docstring(found[0]) or "") if found else ""
