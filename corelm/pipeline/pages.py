"""Pages about data: one file each, without scripts, and whatever a text holds, it is shown and never obeyed."""

from __future__ import annotations

from html import escape
from typing import Final

from corelm.pipeline.changes import changes, visible

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#667085;--rule:#d9dee7;--paper:#fff;--card:#f6f8fb;--bar:#2563eb;
--gone:#b91c1c;--gone-back:#fee2e2;--new:#166534;--new-back:#dcfce7}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--rule:#323a48;--paper:#12161d;--card:#1a202a;
--bar:#7aa2ff;--gone:#fca5a5;--gone-back:#4c1d1d;--new:#86efac;--new-back:#14361f}}
body{margin:2rem auto;max-width:1100px;padding:0 1rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}h3{font-size:1rem;margin:1rem 0 .3rem}
.soft{color:var(--soft);font-weight:400}a{color:var(--bar)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.4rem 1rem .4rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{color:var(--soft);font-weight:500}.number{text-align:right;white-space:nowrap}
.bar{display:inline-block;height:.6rem;border-radius:.2rem;background:var(--bar);min-width:1px}
details{margin:.4rem 0 1rem}summary{cursor:pointer}
.text{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--card);border-radius:8px;padding:.6rem .8rem;
margin:.3rem 0 1rem;font:13px/1.5 ui-monospace,monospace;max-height:22rem;overflow-y:auto}
del{color:var(--gone);background:var(--gone-back);text-decoration:line-through}
ins{color:var(--new);background:var(--new-back);text-decoration:none}
.dropped{border-left:4px solid var(--gone)}
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole page around its body; ``style`` is added to that of all pages."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f"{body}\n</body></html>\n"
    )


def text_box(before: str, after: str | None) -> str:
    """A text that was dropped (``after`` None), or what a rewriting took out and put in."""
    if after is None:
        return f'<div class="text dropped">{escape(shown(before))}</div>'
    tags = {"gone": "del", "new": "ins"}
    pieces = [
        f"<{tags[kind]}>{escape(visible(text))}</{tags[kind]}>" if kind in tags else escape(shown(text))
        for kind, text in changes(before, after)
    ]
    return f'<div class="text">{"".join(pieces)}</div>'


def shown(text: str) -> str:
    """Text as it is, but for characters that a page must not hold or that turn the direction of what follows."""
    return "".join(visible(c) if c not in "\n\t " and not c.isprintable() else c for c in text)
