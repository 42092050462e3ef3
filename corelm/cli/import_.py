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
    from corelm.model.loading import save_imported
    from corelm.pipeline.starting import read_foreign
    from corelm.registration import active

    part, source = read_part("interchange", args.format, "format").build(), Path(args.source).expanduser()
    out = new_folder(args.out)
    if not source.exists():
        raise UserError(f"{source} does not exist", remedy="Name a folder or file on this machine.", code="no-source")
    if (source / "model.json").is_file():
        raise UserError(
            f"{source} is a model folder of corelm's already", remedy="It needs no import.", code="no-source"
        )
    if not part.recognises(source):
        remedy = "Formats: " + ", ".join(record.name for record in active().parts("interchange"))
        raise UserError(f"{source} does not look like {args.format}", remedy=remedy, code="no-source")
    imported = read_foreign(part, source, lambda note: print(note, file=sys.stderr))
    save_imported(imported, out)
    print(f"wrote {out}")
    return 0
