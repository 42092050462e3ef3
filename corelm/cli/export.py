"""``corelm export``: write a model in another format."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  corelm export hugging-face runs/quickstart/preferred --out folder
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "export",
        help="write a model in another format",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", help="an interchange part, e.g. hugging-face")
    parser.add_argument("model", help="a model's folder")
    parser.add_argument("--out", required=True, help="folder to make; must not exist yet")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write it beside its final place, then move it there."""
    import shutil

    from corelm.cli.evaluate import Quiet
    from corelm.cli.models import open_model
    from corelm.cli.parts import read_part
    from corelm.files import new_folder, publish, writing

    part, out = read_part("interchange", args.format, "format").build(), new_folder(args.out)
    model = open_model(args.model)
    made = out.with_name(f".{out.name}.part")
    with writing(out):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        try:
            part.write(model, made, Quiet())
            publish(made, out)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    print(f"wrote {out}")
    return 0
