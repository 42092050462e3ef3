"""``corelm list``: what is installed."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

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
    from corelm.cli.plugins import warn_of_failures
    from corelm.registration import active

    registry = active()
    warn_of_failures(registry, sys.stderr)
    if args.kind is not None:
        registry.kind(args.kind)
    records = registry.parts(args.kind)
    if args.json:
        fields = ("kind", "name", "qualified", "distribution", "version", "summary", "target", "plugin", "interface")
        print(json.dumps([{name: getattr(record, name) for name in fields} for record in records], indent=1))
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
