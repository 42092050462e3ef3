"""``corelm data preview``: what a recipe does to its first documents, before anything is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from corelm.cli.data_preview import Preview, Previewed, Section, Step, Token

EPILOG = """examples:
  corelm data preview recipe.yaml
  corelm data preview recipe.yaml --documents 50 --html preview.html
  corelm data preview recipe.yaml --stage tuned corpus.clean=[unicode-repair]

Nothing is written but the page, and no stage is run. Tokens on a coloured ground are learnt; grey ones are only read.
Where colours can't be shown, tokens are set apart by | and those that are only read stand between [[ and ]].
"""

TOKENS: Final = 240
"""Tokens of a row that are shown in a terminal."""
_GROUNDS: Final = ("on color(24)", "on color(29)", "on color(60)", "on color(94)")


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("data", help="look at data as a model will see them")
    deeds = parser.add_subparsers(dest="deed", metavar="WHAT", required=True)
    deed = deeds.add_parser(
        "preview",
        help="documents before and after each cleaner, and their tokens with the loss mask",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    deed.add_argument("recipe")
    deed.add_argument("overrides", nargs="*", default=[], metavar="path=value")
    deed.add_argument("--documents", type=_count, default=5, metavar="N", help="documents read of each source (5)")
    deed.add_argument(
        "--stage", action="append", default=[], metavar="NAME", help="only this one, or corpus; may be repeated"
    )
    deed.add_argument("--out", type=Path, metavar="DIR", help="where run folders are; a tokenizer there is used")
    deed.add_argument("--html", type=Path, metavar="FILE", help="write a page instead of printing")
    deed.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Read, clean, tokenize, show."""
    from corelm.cli.data_preview import preview
    from corelm.recipe.reader import Recipe

    recipe = Recipe.read(args.recipe, overrides=args.overrides)
    found = preview(recipe, args.documents, args.out, args.stage)
    if args.html is not None:
        from corelm.cli.data_page import render
        from corelm.files import write_atomic

        write_atomic(args.html, render(found))
        print(f"wrote {args.html}", file=sys.stderr)
        return 0
    from rich.console import Console

    show(found, Console(highlight=False))
    return 0


def show(found: Preview, console: Console) -> None:
    """Print the preview."""
    from rich.text import Text

    colours = console.is_terminal and not console.no_color
    for note in found.notes:
        console.print(Text(note, "dim"))
    for section in found.sections:
        console.rule(Text(f"{section.title}: {len(section.documents)} documents of {section.source}"), align="left")
        for document in section.documents:
            for line in _document(document, colours=colours):
                console.print(line)
        for line in _tokens(section, colours=colours):
            console.print(line)


def _document(document: Previewed, *, colours: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    head = Text(document.name, "bold")
    head.append(f"  {document.characters:,} characters", "dim")
    if all(step.before == step.after for step in document.steps):
        untouched = ", ".join(step.name for step in document.steps)
        yield head.append(f"  unchanged by {untouched}" if untouched else "", "dim")
        yield _inset(Text(_short(document.text, 240)))
        return
    yield head
    for changed, steps in groupby(document.steps, key=lambda step: step.before != step.after):
        if changed:
            for step in steps:
                yield from _step(step, colours=colours)
        else:
            yield Text(f"  {', '.join(step.name for step in steps)}: unchanged", "dim")


def _step(step: Step, *, colours: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    from corelm.pipeline.changes import changes, visible

    reasons = ", ".join(f"{reason} × {times}" if times > 1 else reason for reason, times in step.reasons.items())
    detail = f" ({step.detail})" if step.detail else ""
    if step.after is None:
        yield Text.assemble(f"  {step.name}: ", ("dropped", "bold red"), f" {reasons}{detail}")
        yield _inset(Text(_short(step.before, 240), "dim"))
    else:
        yield Text.assemble(f"  {step.name}: ", ("rewritten", "bold yellow"), f" {reasons}{detail}")
        styles = {"gone": "red strike", "new": "green underline"}
        marks = {"gone": ("[-", "-]"), "new": ("{+", "+}")}
        line = Text()
        for kind, text in changes(step.before, step.after):
            opened, closed = ("", "") if colours else marks.get(kind, ("", ""))
            seen = visible(text) if kind in marks else _short(text, len(text))
            line.append(f"{opened}{seen}{closed}", styles.get(kind, ""))
        yield _inset(line)


def _inset(text: Text) -> RenderableType:
    """Each line under its document."""
    from rich.padding import Padding

    return Padding(text, (0, 0, 0, 4), expand=False)


def _short(text: str, most: int) -> str:
    from corelm.pipeline.changes import visible

    cut = text[:most] + (" …" if len(text) > most else "")
    return visible(cut).replace("↵", "")


def _tokens(section: Section, *, colours: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    if section.packed:
        yield Text(f"tokens: {section.packed}", "bold")
    for number, row in enumerate(section.rows, start=1):
        learnt = sum(token.learnt for token in row)
        yield Text(f"  row {number}: {len(row):,} tokens, {learnt:,} of them learnt", "dim")
        line = _coloured(row[:TOKENS]) if colours else Text(plain(row[:TOKENS]))
        yield _inset(line.append(f" … {len(row) - TOKENS:,} more" if len(row) > TOKENS else "", "dim"))


def _coloured(row: list[Token]) -> Text:
    from rich.text import Text

    from corelm.pipeline.changes import visible

    line = Text()
    for number, token in enumerate(row):
        ground = _GROUNDS[2 * (token.document % 2) + number % 2]
        style = f"white {ground}" if token.learnt else "dim"
        line.append(visible(token.text), f"{style} bold" if token.special else style)
    return line


def plain(row: list[Token]) -> str:
    """Tokens without colours: set apart by |, those that are not learnt between [[ and ]]."""
    from corelm.pipeline.changes import visible

    pieces, learnt = [], True
    for token in row:
        if token.learnt != learnt:
            pieces.append("[[" if learnt else "]]")
            learnt = token.learnt
        pieces.append(f"{visible(token.text)}|")
    return "".join([*pieces, "" if learnt else "]]"])
