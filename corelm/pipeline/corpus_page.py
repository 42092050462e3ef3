"""What was done to a corpus, as a page: counts by step and reason, and samples of what was dropped and rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from corelm.pipeline.pages import page, text_box


def render(name: str, report: Mapping[str, Any]) -> str:
    """The page of a corpus's ``report.json``."""
    counts = report["documents"]
    lines = [
        f'<p class="soft">{counts["train"]:,} documents to train on, {counts["holdout"]:,} held out; '
        f"{report['bytes'] / 1e6:,.1f} MB of text.</p>"
    ]
    lines += [f"<p>{escape(sentence)}</p>" for sentence in report.get("read", ())]
    cleaners: Sequence[Mapping[str, Any]] = report["cleaners"]
    if not cleaners:
        lines.append("<p>No cleaners: the documents are as the source gave them.</p>")
    else:
        lines += [_table(cleaners), *(_section(number, found) for number, found in enumerate(cleaners, start=1))]
    return page(f"{name}: corpus", "\n".join(lines))


def _table(cleaners: Sequence[Mapping[str, Any]]) -> str:
    most = max(1, cleaners[0]["seen"])
    rows = "".join(
        f'<tr><td><a href="#step-{number}">{escape(found["use"])}</a></td><td class="number">{found["seen"]:,}</td>'
        f'<td class="number">{found["kept"]:,}</td><td class="number">{found["seen"] - found["kept"]:,}</td>'
        f'<td class="number">{_share(found["kept"], found["seen"])}</td>'
        f'<td style="width:30%"><span class="bar" style="width:{100 * found["kept"] / most:.1f}%"></span></td></tr>'
        for number, found in enumerate(cleaners, start=1)
    )
    return (
        '<table><tr><th>step</th><th class="number">documents</th><th class="number">kept</th>'
        f'<th class="number">dropped</th><th class="number">share kept</th><th></th></tr>{rows}</table>'
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _section(number: int, found: Mapping[str, Any]) -> str:
    title = f'<h2 id="step-{number}">{escape(found["use"])}</h2>'
    if not found["reasons"]:
        return f'{title}<p class="soft">Nothing was dropped or rewritten.</p>'
    ranked = sorted(found["reasons"].items(), key=lambda item: (-item[1], item[0]))
    return title + "".join(_reason(reason, count, found["samples"].get(reason, [])) for reason, count in ranked)


def _reason(reason: str, count: int, samples: list[Mapping[str, Any]]) -> str:
    """One reason, folded; a fair draw of what it was met in."""
    deed = "" if not samples else "dropped" if samples[0]["after"] is None else "rewritten"
    title = f'<summary>{escape(reason)} <span class="soft">{count:,} × {deed}</span></summary>'
    boxes = "".join(
        f"<div>{escape(sample['name'])}"
        f"{' <span class=soft>' + escape(sample['detail']) + '</span>' if sample['detail'] else ''}</div>"
        f"{text_box(sample['before'], sample['after'])}"
        for sample in samples
    )
    return f"<details open>{title}{boxes}</details>"
