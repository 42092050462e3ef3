"""``corelm import``: read a model from another format."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  corelm import hugging-face ~/models/TinyLlama --out models/tiny-llama
  corelm generate models/tiny-llama --prompt "Hello"
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "import",
        help="read a model from another format",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", help="an interchange part, e.g. hugging-face")
    parser.add_argument("source", help="folder or file of that format")
    parser.add_argument("--out", required=True, help="folder to make; must not exist yet")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, assemble, save."""
    import sys
    from pathlib import Path

    from corelm.cli.parts import read_part
    from corelm.errors import UserError
    from corelm.files import new_folder
    from corelm.model.loading import from_imported, save

    out, source = new_folder(args.out), Path(args.source)
    part = read_part("interchange", args.format).build()
    if not part.recognises(source):
        raise UserError(f"{source} does not look like {args.format}", remedy="See: corelm list interchange")
    imported = part.read(source)
    for note in imported.notes:
        print(note, file=sys.stderr)
    save(from_imported(imported), out)
    print(f"wrote {out}")
    return 0
