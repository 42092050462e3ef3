"""The limits of one example: it must end, and it mustn't take all the memory there is."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import torch

SECONDS: Final = 30.0
"""An example that computes for longer is taken for one that never ends; the slowest take some seconds."""

WAITING: Final = 4
"""How many times as long it may take when it waits rather than computes: on a busy machine everybody does."""

MEMORY: Final = 4 * 2**30
"""Bytes that an example may take beyond what the process has; examples are tiny."""

beat: Callable[[], None] = lambda: None  # noqa: E731
"""Called once a second while an example is within its limits; a worker process tells its keeper that it is alive."""


class Endless(BaseException):
    """An example didn't end in time. No ``Exception``, lest the part swallows it."""


class Stopped(KeyboardInterrupt):
    """The user's own interrupt, as opposed to a ``KeyboardInterrupt`` that a part raises."""


@contextlib.contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Run what is inside within the limits.

    What never returns to Python can't be interrupted from here; ``corelm verify`` ends the process that it runs in.

    Raises:
        Endless: it took too long (in the main thread only: others can't be interrupted).
        MemoryError: it took too much memory.
        Stopped: the user pressed Ctrl-C.
    """
    with _clock(seconds), _interrupt(), _memory():
        yield


@contextlib.contextmanager
def _clock(seconds: float) -> Iterator[None]:
    """Count ticks rather than time: a process that the machine has stopped for a while is not to blame for it."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    step, ticks, room = min(1.0, seconds / 4), 0, _resident() + MEMORY
    limit, computed = seconds, time.thread_time()

    def tick(number: int, frame: FrameType | None) -> None:
        nonlocal ticks
        ticks += 1
        if time.thread_time() - computed >= limit:
            raise Endless(f"it had not ended after {seconds:g} s of computing")
        if ticks * step >= WAITING * limit:
            raise Endless(f"it had not ended after {WAITING * seconds:g} s")
        if _resident() > room:
            raise MemoryError
        beat()

    before = signal.signal(signal.SIGALRM, tick)
    left, interval = signal.setitimer(signal.ITIMER_REAL, step, step)
    began = time.monotonic()
    try:
        yield
    finally:
        limit, room = math.inf, sys.maxsize
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        if left:  # somebody else's alarm, e.g. a time limit of pytest's
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3), interval)


@contextlib.contextmanager
def _interrupt() -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _pages(column: int) -> int:
    """A figure of this process in bytes: 0 address space, 1 resident; 0 where the system doesn't tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as figures:
            return int(figures.read().split()[column]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _resident() -> int:
    return _pages(1)


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Let the system refuse what goes beyond; a graphics card's driver reserves more than anybody has."""
    if not sys.platform.startswith("linux") or torch.cuda.is_available():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    room = _pages(0) + MEMORY
    if min((room, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY))) < room:
        yield  # there is a stricter limit already
        return
    resource.setrlimit(resource.RLIMIT_AS, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out; torch says so with a RuntimeError."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "t allocate memory" in said or "cannot allocate memory" in said


def explain_limits(error: Any) -> str:
    """What a broken limit means, in words; '' for other errors."""
    if isinstance(error, Endless):
        return f"{error}: it hangs, or is far too slow for an example this small"
    if out_of_memory(error):
        said = f" ({error})" if str(error) else ""
        return f"it wanted more than the {MEMORY / 2**30:g} GiB of memory that an example may take{said}"
    return ""
