"""First-party trackers: what a run tells, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str], ...] = (
    ("progress", "progress:Progress", "Live progress in the terminal, and the table of stages at the end"),
    ("jsonl", "jsonl:JsonLines", "Writes every event as a line of JSON to events.jsonl"),
    ("html", "html:HtmlPage", "Keeps report.html, one self-contained page with the stages and their curves"),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for name, target, summary in _PARTS:
        registry.add("tracker", name, f"corelm_tracking.{target}", summary=summary)
