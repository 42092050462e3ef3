"""Who is told what happens in a run: trackers and plugins' hooks, none of which can slow or break it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from corelm.kinds.tracker import StageSummary, Tracker
from corelm.pipeline.processes import ALONE, RunGroup
from corelm.registration import active

LOOK_SECONDS = 1.0
"""Between two looks at whether another process was asked to stop; signals that come sooner than this are one."""


class Stop:
    """Set by Ctrl-C or SIGTERM; long jobs look at it and stop cleanly. A second signal stops at once.

    Args:
        group: the processes of the run. Where there are several, a launcher may pass on a signal that the terminal has
            sent to all of them as well: what comes within a second is the same one.
    """

    def __init__(self, group: RunGroup = ALONE) -> None:
        self.requested = False
        self._group = group
        self._looked = self._first = 0.0

    def asked(self) -> bool:
        """Whether this process was asked to stop, or another one that waits for it."""
        if not self.requested and self._group.world > 1 and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self.requested = self._group.asked_to_stop()
        return self.requested

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the signals for the length of a ``with`` block (in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def on_signal(number: int, frame: FrameType | None) -> None:
            now = time.monotonic()
            if self._group.world > 1 and self._first and now - self._first < LOOK_SECONDS:
                return
            if self._first:
                raise KeyboardInterrupt
            self.requested, self._first = True, now
            if self._group.leads:
                print("stopping after this step; press again to stop at once", file=sys.stderr)

        for number in before:
            signal.signal(number, on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Watchers:
    """All trackers of a run and the plugins' ``corelm_run_event`` hook; one that raises is reported and dropped."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = list(trackers)
        self._hooks = [
            (implementation.plugin_name, implementation.function, implementation.argnames)
            for implementation in active().manager.hook.corelm_run_event.get_hookimpls()
        ]

    def tell(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call one method of every tracker."""
        for tracker in list(self._trackers):
            try:
                getattr(tracker, method)(*args, **kwargs)
            except (Exception, SystemExit) as error:  # rich ends the process when its pipe is closed
                self._trackers.remove(tracker)
                self._report(f"tracker {type(tracker).__name__}", method, error)

    def event(self, event: str, **fields: Any) -> None:
        """Tell the plugins' hooks."""
        given = {"event": event, "fields": dict(fields)}
        for name, function, wanted in list(self._hooks):
            try:
                function(**{key: given[key] for key in wanted})
            except Exception as error:
                self._hooks.remove((name, function, wanted))
                self._report(f"plugin {active().plugin(name)}", f"corelm_run_event({event})", error)

    def open(self, folder: Path, recipe: Mapping[str, Any], stages: list[StageSummary]) -> None:
        """A run starts."""
        self.tell("open", folder, recipe, stages)
        self.event("run-start", folder=str(folder), recipe=dict(recipe))

    def _report(self, who: str, where: str, error: BaseException) -> None:
        message = f"{who} failed in {where} and is dropped: {type(error).__name__}: {error}"
        print(message, file=sys.stderr)
        self.tell("note", None, message)


class StageWatch:
    """What one stage reports to."""

    def __init__(self, watchers: Watchers, summary: StageSummary, stop: Stop) -> None:
        self._watchers, self._summary, self._stop = watchers, summary, stop

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Report progress."""
        self._watchers.tell("step", self._summary, step, total, figures)
        self._watchers.event("step", stage=self._summary.name, step=step, total=total, figures=dict(figures))

    def note(self, message: str) -> None:
        """Tell the reader something; kept in the stage's notes."""
        if message not in self._summary.notes:
            self._summary.notes.append(message)
            self._watchers.tell("note", self._summary, message)

    def checkpoint(self, step: int) -> None:
        """A checkpoint was saved."""
        self._watchers.tell("checkpoint", self._summary, step)
        self._watchers.event("checkpoint", stage=self._summary.name, step=step)

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""
        return self._stop.asked()
