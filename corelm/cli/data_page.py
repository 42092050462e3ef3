"""The preview of a recipe's data as one self-contained page."""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Final

from corelm.pipeline.changes import visible
from corelm.pipeline.pages import page, shown, text_box

if TYPE_CHECKING:
    from corelm.cli.data_preview import Preview, Previewed, Section, Step, Token

_STYLE: Final = """
:root{--a:#dbeafe;--b:#bfdbfe;--c:#fef3c7;--d:#fde68a}
@media(prefers-color-scheme:dark){:root{--a:#1e3a5f;--b:#27507f;--c:#4a3a12;--d:#655018}}
.text i{font-style:normal;border-radius:2px}.text i.x{color:var(--soft);text-decoration:underline dotted}
.text i.s{font-weight:700}.text i.k0{background:var(--a)}.text i.k1{background:var(--b)}.text i.k2{background:var(--c)}
.text i.k3{background:var(--d)}
.deed{font-weight:600}.no{color:var(--gone)}.yes{color:var(--new)}
"""
TOKENS: Final = 4000
"""Tokens of a row that are shown."""


def render(found: Preview) -> str:
    """The whole page."""
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in found.notes)
    return page(f"{found.name}: preview of the data", notes + "".join(map(_section, found.sections)), _STYLE)


def _section(section: Section) -> str:
    head = f'<h2>{escape(section.title)} <span class="soft">{len(section.documents)} documents of {escape(section.source)}'
    rows = "".join(map(_row, section.rows))
    tokens = f'<h3>tokens <span class="soft">{escape(section.packed)}</span></h3>{rows}' if section.packed else ""
    return f"{head}</span></h2>{_key() if rows else ''}{tokens}<h3>documents</h3>{''.join(map(_document, section.documents))}"


def _key() -> str:
    return (
        '<p class="soft">Tokens on a ground of colour are learnt, two shades in turn, another colour for each document; '
        "those on none, with dots under them, are only read. Point at one for its number.</p>"
    )


def _row(row: list[Token]) -> str:
    learnt = sum(token.learnt for token in row)
    pieces = []
    for number, token in enumerate(row[:TOKENS]):
        ground = f"k{2 * (token.document % 2) + number % 2}" if token.learnt else "x"
        classes = f"{ground} s" if token.special else ground
        pieces.append(f'<i class="{classes}" title="{token.id}">{escape(visible(token.text))}</i>')
    more = f" … {len(row) - TOKENS:,} more" if len(row) > TOKENS else ""
    caption = f'<div class="soft">{len(row):,} tokens, {learnt:,} of them learnt</div>'
    return f'{caption}<div class="text">{"".join(pieces)}{more}</div>'


def _document(document: Previewed) -> str:
    state = '<span class="no">dropped</span>' if document.dropped else ""
    groups = [
        (change, list(same)) for change, same in groupby(document.steps, lambda step: step.before != step.after)
    ]
    steps = "".join("".join(map(_changed, same)) if change else _unchanged(same) for change, same in groups)
    begun = escape(shown(document.text)) + (" …" if document.characters > len(document.text) else "")
    return (
        f"<details{' open' if document.steps else ''}><summary>{escape(document.name)} "
        f'<span class="soft">{document.characters:,} characters</span> {state}</summary>'
        f'<div class="text">{begun}</div>{steps}</details>'
    )


def _unchanged(steps: list[Step]) -> str:
    return f'<div class="soft">unchanged by {escape(", ".join(step.name for step in steps))}</div>'


def _changed(step: Step) -> str:
    deed = '<span class="deed no">dropped</span>' if step.after is None else '<span class="deed yes">rewritten</span>'
    reasons = ", ".join(f"{reason} × {times}" if times > 1 else reason for reason, times in step.reasons.items())
    detail = f' <span class="soft">{escape(step.detail)}</span>' if step.detail else ""
    box = text_box(step.before, step.after) if step.after is not None else ""
    return f"<div>{escape(step.name)}: {deed} {escape(reasons)}{detail}</div>{box}"
