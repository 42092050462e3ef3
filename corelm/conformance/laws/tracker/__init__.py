"""Properties of trackers."""

from __future__ import annotations

from corelm.conformance.laws.tracker import events, files, pages

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

__all__ = ["events", "files", "pages"]
