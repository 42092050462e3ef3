"""``corelm describe``: a kind's contract, or a part's options."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelm.kinds.papers import Paper

EPILOG = """examples:
  corelm describe attention           what every attention must hold
  corelm describe attention/gqa       what this one does, its options, where its code is
  corelm describe norm/acme:scaled    of a certain distribution
"""


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "describe",
        help="a kind's contract, or a part's options",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="KIND[/NAME]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from corelm.registration import active

    kind, _, name = args.what.partition("/")
    active().kind(kind)
    facts = part_facts(kind, name) if name else kind_facts(kind)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.json else render(facts))
    return 0


def kind_facts(kind: str) -> dict[str, Any]:
    """What is known of a kind."""
    from corelm.registration import active

    registry = active()
    found = registry.kinds[kind]
    contract = inspect.cleandoc(found.load().__doc__ or "")
    parts = [record.qualified for record in registry.parts(kind)]
    return {
        "kind": kind,
        "summary": found.summary,
        "interface": found.interface,
        "contract": contract,
        "parts": parts,
    }


def part_facts(kind: str, name: str) -> dict[str, Any]:
    """What is known of a part."""
    from corelm.cli.type_names import bound_name, type_name
    from corelm.registration import active

    record = active().find(kind, name)
    part = record.load()
    options = []
    for field, info in part.Config.model_fields.items():
        required = info.is_required()
        default = None if required else _plain(info.get_default(call_default_factory=True))
        bounds = [text for text in map(bound_name, info.metadata) if text]
        options.append(
            {
                "name": info.alias or field,
                "type": type_name(info.annotation),
                "required": required,
                "default": default,
                "bounds": bounds,
                "description": info.description or "",
            }
        )
    return {
        "kind": kind,
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "location": record.location,
        "revision": part.revision,
        "description": inspect.cleandoc(part.__doc__ or ""),
        "papers": paper_facts(part.papers()),
        "elementary": part.elementary,
        "parameters": _said(part, "parameter_count"),
        "cost": _said(part, "cost"),
        "options": options,
    }


def paper_facts(papers: Sequence[Paper]) -> list[dict[str, str]]:
    """Papers as plain data."""
    return [{**paper._asdict(), "address": paper.address} for paper in papers]


def _said(part: type[Any], what: str) -> str:
    """What a part says in words of its size or cost; '' where it leaves it to be worked out."""
    return (inspect.getdoc(getattr(part, what)) or "").replace("``", "") if hasattr(part, what) else ""


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "dump"):
        return value.dump()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def render(facts: dict[str, Any]) -> str:
    """As people read it."""
    if "contract" in facts:
        parts = "\n".join(f"  {part}" for part in facts["parts"]) or "  none installed"
        return f"{facts['kind']}: {facts['summary']} (interface {facts['interface']})\n\n{facts['contract']}\n\nparts:\n{parts}"
    lines = [
        f"{facts['kind']}/{facts['name']}  ({facts['distribution']} {facts['version']})",
        "",
        facts["description"],
        "",
    ]
    if facts["papers"]:
        lines += ["papers:", *(f"  {paper['citation'] or '—'}  {paper['address']}" for paper in facts["papers"]), ""]
    for what in ("parameters", "cost"):
        if facts[what]:
            lines += [f"{what}: {' '.join(facts[what].split())}", ""]
    lines.append("options:" if facts["options"] else "no options")
    for option in facts["options"]:
        default = "required" if option["required"] else f"default {json.dumps(option['default'], ensure_ascii=False)}"
        bounds = f", {', '.join(option['bounds'])}" if option["bounds"] else ""
        lines.append(f"  {option['name']}: {option['type']}{bounds}  ({default})")
        lines.append(f"      {option['description']}")
    required = [f"{option['name']}: …" for option in facts["options"] if option["required"]]
    lines += ["", "in a recipe:", f"  {facts['kind']}: {{use: {', '.join([facts['name'], *required])}}}"]
    lines += ["", f"code: {facts['location']}"]
    return "\n".join(lines)
