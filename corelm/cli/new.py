"""``corelm new plugin``: begin a plugin of your own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from corelm.cli.skeletons import PROJECT, README, REGISTER, SKELETONS, TEST

EPILOG = """examples:
  corelm new plugin acme-norms                    a package with a norm, ready to install
  corelm new plugin acme-decoding --kind sampler
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "new", help="begin a plugin of your own", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["plugin"])
    parser.add_argument("name", metavar="NAME", help="of the package, such as acme-norms; also of the folder")
    parser.add_argument("--kind", default="norm", choices=sorted(SKELETONS), help="of its first part (default norm)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write a whole package with a part, a test and a page about it."""
    from corelm.errors import UserError
    from corelm.files import new_folder, publish, writing

    folder, skeleton = Path(args.name), SKELETONS[args.kind]
    module = folder.name.replace("-", "_")
    if folder.name != folder.name.lower() or not module.isidentifier() or not folder.name.isascii():
        raise UserError(
            f"{folder.name!r} is no name of a package",
            remedy="Use lower case letters, digits and hyphens, e.g. acme-norms.",
            code="package-name",
        )
    new_folder(folder)
    file = skeleton.name.replace("-", "_")
    facts = {
        "name": folder.name.replace("_", "-"),
        "module": module,
        "kind": args.kind,
        "part": skeleton.name,
        "file": file,
        "cls": skeleton.cls,
        "summary": skeleton.summary,
    }
    made = folder.with_name(f".{folder.name}.part")
    contents = {
        "pyproject.toml": PROJECT.format(**facts),
        "README.md": README.format(**facts),
        f"{module}/__init__.py": REGISTER.format(**facts),
        f"{module}/{file}.py": f'"""{skeleton.summary}"""\n\nfrom __future__ import annotations\n\n{skeleton.code}',
        f"tests/test_{module}.py": TEST.format(**facts),
    }
    with writing(folder):
        for name, text in contents.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text, encoding="utf-8")
        publish(made, folder)
    print(f"wrote {folder}: {args.kind}/{skeleton.name} in {module}/{file}.py, to be changed into your own")
    print(f'next: python -m pip install -e "{folder}" && corelm verify --plugin {facts["name"]}')
    return 0
