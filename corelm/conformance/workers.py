"""Keeps the processes in which parts are held to their properties, and ends those that hang."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from corelm.conformance.framework import PartUnderTest
from corelm.conformance.limits import WAITING
from corelm.conformance.running import Outcome, command, pending
from corelm.conformance.sequence import Options, properties
from corelm.conformance.worker import address, read

START_SECONDS: Final = 120
"""A process that has said nothing so long after its start is given up."""

GRACE_SECONDS: Final = 2
"""A process that says nothing for so much longer than an example may take is ended."""

Watch = Callable[[Outcome], None]


class Worker:
    """One process and what it is doing.

    Attributes:
        keeper: who gives out the jobs.
        part: index of the part that it holds to its properties; -1 for none.
        begun: name of the property that it is at; '' between two.
        loading: address of the part that it is importing; '' for none.
        ready: whether it has imported all parts.
        quiet, computed: seconds for which it has said nothing, and seconds that it had computed by then.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.keeper, self.part, self.begun, self.loading, self.ready = keeper, -1, "", "", False
        self.quiet, self.computed = 0, 0.0
        self.log, self.buffer = tempfile.TemporaryFile(), b""  # noqa: SIM115
        path = os.pathsep.join(os.path.abspath(folder or ".") for folder in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "corelm.conformance.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        self.send(unusable=keeper.unusable, seconds=keeper.options.seconds)

    def send(self, **message: Any) -> None:
        """Say something to the process; one that has ended is noticed when it is listened to."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{json.dumps(message)}\n".encode())
            self.process.stdin.flush()

    def told(self) -> list[dict[str, Any]] | None:
        """What it has said meanwhile; None when it has ended."""
        assert self.process.stdout
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            return None
        self.quiet, self.computed = 0, self.computing()
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def printed(self) -> str:
        """What has been printed, by whatever way."""
        return os.pread(self.log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def hangs(self) -> bool:
        """Whether it has been silent for too long: while an example is within its limits, it says so every second."""
        if not self.ready and not self.loading:
            return self.quiet > START_SECONDS
        limit = self.keeper.options.seconds
        busy = self.quiet > limit + GRACE_SECONDS and self.computing() - self.computed > limit
        return busy or self.quiet > WAITING * limit + GRACE_SECONDS

    def computing(self) -> float:
        """Seconds of processor time that it has used; 0 where the system doesn't tell."""
        with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as figures:
            columns = figures.read().rpartition(")")[2].split()
            return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def kill(self) -> None:
        """End it and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def hung(self) -> str:
        """Where it hangs, asked before it is ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        return (
            f"it had not ended after {self.quiet} s and could not be interrupted{self.place()}: it "
            "hangs outside of Python, or goes on whatever is raised"
        )

    def ended(self) -> str:
        """Why the process has ended by itself."""
        code = self.process.wait()
        if code >= 0:
            return f"it ended the process with code {code}{self.place()}; parts raise errors, they don't exit"
        name = signal.Signals(-code).name
        if name == "SIGKILL":
            return "the system ended the process (SIGKILL): most likely it took more memory than there is"
        return f"it crashed the process ({name}){self.place()}"

    def place(self) -> str:
        """The last line of the part that ran, or else of any Python, as faulthandler has written it down."""
        frames = re.findall(r'File "([^"]+)", line (\d+)', self.printed().rpartition("most recent call first")[2])
        record = self.keeper.parts[self.part].record if self.part >= 0 else None
        own = [frame for frame in frames if record and frame[0] == record.location]
        others = [frame for frame in frames if os.path.dirname(frame[0]) != os.path.dirname(__file__)]
        inner = [*own, *others, *frames]
        return f" at {inner[0][0]}:{inner[0][1]}" if inner else ""


class Keeper:
    """Gives parts to processes and gathers the outcomes.

    Attributes:
        parts: all of them.
        options: how they are held to their properties.
        unusable: parts whose import hangs or ends the process, and why.
        results: outcomes by part.
    """

    def __init__(self, parts: Sequence[PartUnderTest], options: Options, watch: Watch, finished: Any) -> None:
        self.parts, self.options, self.watch, self.finished = parts, options, watch, finished
        self.unusable: dict[str, str] = {}
        self.results: list[list[Outcome]] = [[] for _ in parts]
        self.waiting = deque(range(len(parts)))

    def run(self, jobs: int) -> list[Outcome]:
        """Do everything in so many processes."""
        workers = [Worker(self) for _ in range(min(jobs, len(self.parts)))]
        second = time.monotonic()
        try:
            while workers:
                with selectors.DefaultSelector() as listening:
                    for worker in workers:
                        listening.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
                    heard = [key.data for key, _ in listening.select(timeout=1.0)]
                if (
                    time.monotonic() - second >= 1
                ):  # if the machine has stopped us for a while, it is one second all the same
                    second = time.monotonic()
                    for worker in workers:
                        worker.quiet += 1
                workers = [w for worker in workers for w in self._turn(worker, worker in heard)]
        finally:
            for worker in workers:
                worker.kill()
        return [outcome for outcomes in self.results for outcome in outcomes]

    def _turn(self, worker: Worker, heard: bool) -> list[Worker]:
        """Hear a process out; returns it, the one that takes its place, or none when there is nothing left to do."""
        messages = worker.told() if heard else []
        for message in messages or []:
            self._take(worker, message)
        if messages is None:
            return self._replace(worker, worker.ended())
        if worker.hangs():
            return self._replace(worker, worker.hung())
        if worker.ready and worker.part < 0:
            if not self.waiting:
                worker.kill()
                return []
            self._give(worker, self.waiting.popleft())
        return [worker]

    def _give(self, worker: Worker, index: int) -> None:
        record = self.parts[index].record
        assert record is not None
        worker.part = index
        before = [[o.prop.name, o.status, o.reason, o.endless] for o in self.results[index]]
        worker.send(part=address(record), before=before, **vars(self.options))

    def _take(self, worker: Worker, message: dict[str, Any]) -> None:
        """Note down what a process has said."""
        if "importing" in message:
            worker.loading = message["importing"]
        elif "ready" in message:
            worker.ready, worker.loading = True, ""
        elif "begin" in message:
            worker.begun = message["begin"]
        elif "outcome" in message:
            outcome = read(message["outcome"], self.parts[worker.part])
            worker.begun = ""
            self._note(worker.part, outcome)
        elif "done" in message:
            self.finished(self.results[worker.part])
            worker.part = -1

    def _note(self, index: int, outcome: Outcome) -> None:
        self.results[index].append(outcome)
        self.watch(outcome)

    def _replace(self, worker: Worker, why: str) -> list[Worker]:
        """Blame what was going on when a process ended, and go on behind it in a fresh one."""
        index, name = worker.part, worker.begun
        if worker.loading:
            self.unusable[worker.loading] = f"importing {worker.loading} failed: {why}"
        elif not worker.ready:
            tail = worker.printed().strip()[-2000:]
            worker.kill()
            raise RuntimeError(f"a process of the kit could not be started: {why}\n{tail}")
        elif index >= 0:
            part, done = self.parts[index], {outcome.prop.name for outcome in self.results[index]}
            left = [prop for prop in properties(part.kind) if prop.name not in done and self.options.mean(prop)]
            prop = next((prop for prop in left if prop.name == name), left[0] if left else None)
            if prop is not None:
                outcome = pending(part, prop, "failed", why)
                outcome.endless = outcome.conduct = True
                outcome.reproduce = command(
                    part, prop, self.options.examples, self.options.seed, self.options.seconds
                )
                self._note(index, outcome)
        worker.kill()
        if index >= 0:
            self.waiting.appendleft(index)
        return [Worker(self)]


def run_parts(
    parts: Sequence[PartUnderTest],
    options: Options,
    *,
    jobs: int,
    watch: Watch = lambda outcome: None,
    finished: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Hold parts to their properties in processes that are ended when they hang.

    Args:
        parts: registered ones.
        options: which properties, and how.
        jobs: number of processes.
        watch: told each outcome as it comes.
        finished: told the outcomes of each part when there are all.

    Raises:
        RuntimeError: the processes can't be started.
    """
    return Keeper(parts, options, watch, finished).run(jobs)
