"""``corelm plugins``: installed plugins, and those that failed to load."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from corelm.registration import Registry


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("plugins", help="installed plugins, and those that failed to load")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line per plugin."""
    from corelm.registration import active

    registry = active()
    counts = dict.fromkeys(registry.plugins, 0)
    for record in registry.parts():
        key = (record.plugin, record.distribution, record.version)
        counts[key] = counts.get(key, 0) + 1
    if args.json:
        loaded = [
            dict(zip(("plugin", "distribution", "version"), k, strict=True), parts=n) for k, n in counts.items()
        ]
        failed = [vars(failure) for failure in registry.failures]
        print(json.dumps({"loaded": loaded, "failed": failed, "disabled": registry.disabled}, indent=1))
        return 0
    rows = [
        (plugin, f"{distribution} {version}", f"{count} part{'s' * (count != 1)}")
        for (plugin, distribution, version), count in sorted(counts.items())
    ]
    rows += [(name, "", "disabled by CORELM_DISABLE") for name in registry.disabled]
    rows += [(f.plugin, f"{f.distribution} {f.version}", f"FAILED: {f.reason}") for f in registry.failures]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, origin, what in rows:
        print(f"{name:<{widths[0]}}  {origin:<{widths[1]}}  {what}")
    return 0


def warn_of_failures(registry: Registry, file: TextIO) -> None:
    """One sentence for each plugin that failed."""
    for failure in registry.failures:
        print(f"plugin {failure.plugin} ({failure.distribution} {failure.version}): {failure.reason}", file=file)
