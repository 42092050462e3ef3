"""The tokenizer report as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from corelm.cli.tokenizer import SUMMARY, ascii_or_not, by_text

if TYPE_CHECKING:
    from corelm.cli.tokenizer_figures import Figures

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2126;--dim:#626a73;--back:#fff;--line:#d9dde2;--card:#f6f8fb}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ea;--dim:#9aa3ad;--back:#16191d;--line:#363c44;--card:#1e2227}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:72rem;margin:2rem auto;
padding:0 1.2rem}
h1{margin:0 0 .2rem}h2{margin:2.2rem 0 .4rem;font-size:1.15rem}.dim{color:var(--dim)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th{font-weight:500;text-align:left;color:var(--dim)}th,td{padding:.3rem 1.2rem .3rem 0;border-bottom:1px solid var(--line)}
td{text-align:right}td.said{text-align:left}
svg{display:block;max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .dim{fill:var(--dim)}svg line{stroke:var(--line)}
code{background:var(--card);padding:.05rem .3rem;border-radius:.2rem;white-space:pre-wrap;overflow-wrap:anywhere}
.key{display:flex;gap:1.2rem;flex-wrap:wrap;padding:0;list-style:none}
.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;margin-right:.4rem}
"""
_COLOURS: Final = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#64748b", "#b91c1c", "#0891b2")
WIDTH, BAR, LABEL, NUMBER = 860, 12, 190, 46


def page(found: Sequence[Figures]) -> str:
    """The whole page; it needs neither scripts nor a network."""
    key = "".join(
        f'<li><i style="background:{_colour(number)}"></i>{escape(figures.name)}</li>'
        for number, figures in enumerate(found)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Tokenizers</title><style>{_STYLE}</style><h1>Tokenizers</h1>"
        f'<p class="dim">{len(found)} tokenizers, {len(found[0].texts)} texts, '
        f"{sum(text.bytes for text in found[0].texts.values()):,} bytes of UTF-8.</p>"
        f'<div class="wide">{_whole(found)}</div><ul class="key">{key}</ul>'
        "<h2>Bytes per token</h2><p class='dim'>More is shorter sequences.</p>"
        f"{_bars(by_text(found, 'bytes_per_token'))}"
        "<h2>Tokens per word</h2><p class='dim'>A word is a run of letters, with the space before it; 1 is best. It says "
        "little where words are not set apart by spaces.</p>"
        f"{_bars(by_text(found, 'fertility'))}"
        f"<h2>Vocabularies</h2>{''.join(map(_vocabulary, found))}</html>\n"
    )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _whole(found: Sequence[Figures]) -> str:
    rows = [("vocabulary", [f"{f.vocab_size:,}" for f in found])]
    rows += [(title, [form.format(getattr(f, name)) for f in found]) for name, title, form in SUMMARY]
    head = "".join(f"<th>{escape(f.name)}</th>" for f in found)
    body = "".join(
        f"<tr><th>{escape(title)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for title, cells in rows
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _bars(rows: Mapping[str, Sequence[float]]) -> str:
    """A group of bars for each text, one bar for each tokenizer."""
    most = max((value for values in rows.values() for value in values), default=1.0) or 1.0
    many = max(map(len, rows.values()))
    group = many * BAR + 10
    drawn = []
    for place, (title, values) in enumerate(rows.items()):
        top = place * group + 5
        drawn.append(
            f'<text x="{LABEL - 10}" y="{top + many * BAR / 2 + 4:.0f}" text-anchor="end">{escape(title[:28])}</text>'
        )
        for number, value in enumerate(values):
            long = value / most * (WIDTH - LABEL - NUMBER)
            y = top + number * BAR
            drawn.append(
                f'<rect x="{LABEL}" y="{y}" width="{long:.1f}" height="{BAR - 2}" rx="2" fill="{_colour(number)}"/>'
                f'<text class="dim" x="{LABEL + long + 5:.1f}" y="{y + BAR - 3}">{value:.2f}</text>'
            )
    height = len(rows) * group
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">'
        f'<line x1="{LABEL}" x2="{LABEL}" y1="0" y2="{height}"/>{"".join(drawn)}</svg>'
    )


def _vocabulary(figures: Figures) -> str:
    rows = [
        ("longest", figures.longest),
        ("never written for their own spelling", figures.unreachable[:40]),
        ("with control, private or unassigned characters", figures.invisible[:40]),
    ]
    said = "".join(
        f'<tr><th>{title}</th><td class="said">{_spelt(texts) or "none"}</td></tr>' for title, texts in rows
    )
    more = f"<tr><th>partial characters</th><td class='said'>{figures.partial:,} tokens</td></tr>"
    return f'<h3>{escape(figures.name)}</h3><div class="wide"><table>{said}{more}</table></div>'


def _spelt(texts: Sequence[str]) -> str:
    return " ".join(f"<code>{escape(ascii_or_not(text))}</code>" for text in texts)
