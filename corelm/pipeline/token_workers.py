"""Keeps processes that work off a list of jobs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from corelm.errors import UserError

_END: Final = {"end": True}


class Workers:
    """Processes that run a module of ours, which says what they read and answer; they end with the ``with`` block.

    They are started anew, not forked: a fork would hold the run's lock, and hang in libraries that have threads.

    Args:
        module: what they run.
        processes: how many.
        about: what each is told first.
    """

    def __init__(self, module: str, processes: int, about: Mapping[str, Any]) -> None:
        path = os.pathsep.join(os.path.abspath(folder or ".") for folder in sys.path)
        single = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._answers: queue.Queue[tuple[subprocess.Popen[str], dict[str, Any] | None]] = queue.Queue()
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **single, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is this process's to answer
            )
            for _ in range(processes)
        ]
        for process in self._processes:
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()
            self._tell(process, about)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def work(self, jobs: Sequence[Mapping[str, Any]]) -> Iterator[int]:
        """Have all jobs done; yields every ``done`` that is answered, and 0 now and then.

        Raises:
            UserError: what a process raised, or that one has ended.
        """
        left = deque(jobs)
        unfinished = len(left)
        for process in self._processes:
            self._next(process, left)
        while unfinished:
            try:
                process, answer = self._answers.get(timeout=0.2)
            except queue.Empty:
                yield 0
                continue
            if answer == _END:
                unfinished -= 1
                self._next(process, left)
            else:
                yield _done(process, answer)

    def _next(self, process: subprocess.Popen[str], left: deque[Mapping[str, Any]]) -> None:
        if left:
            self._tell(process, left.popleft())

    def _tell(self, process: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
        """Say something to a process; one that has ended is noticed when it is listened to."""
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._answers.put((process, json.loads(line)))
        self._answers.put((process, None))


def _done(process: subprocess.Popen[str], answer: Mapping[str, Any] | None) -> int:
    """How much was done, as the answer says; or the error that it is."""
    if answer is None:
        raise UserError(
            f"a process that tokenizes has ended without a word (exit code {process.wait()})",
            remedy="It may have run out of memory. Run the same command again to go on from what is done.",
            code="worker-lost",
        )
    if "error" in answer:
        raise UserError(answer["error"], remedy=answer["remedy"], code=answer["code"])
    if "crash" in answer:
        raise RuntimeError(f"in a process that tokenizes:\n{answer['crash']}")
    return int(answer["done"])
