"""The processes of one run, where a launcher such as ``torchrun`` or ``accelerate launch`` has started several.

The first one leads: it holds the run's folder, decides what is done, and writes it. The others follow: they hear from it,
through a store of names and values that the launcher keeps (or the leader itself, where the launcher has none), which
stage to take part in. Tensors never pass here; a trainer sees to those itself. Whoever fails first says so, and all
others leave silently with its exit code.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any, Final

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from corelm.errors import Interrupted, ToldElsewhere, UserError, exit_code

COMING: Final = timedelta(minutes=5)
"""How long the processes wait for each other when a run begins."""
ANSWER_SECONDS: Final = 10.0
"""How long a process that was asked to stop waits for the leader's word; launchers kill after 30."""
LEAVE_SECONDS: Final = 3.0
"""How long the leader stays for the others at its end: it may be the one that keeps the store."""
LONGEST_PAUSE: Final = 0.2
"""Between two looks at the store, in seconds."""

_RUNS = itertools.count()


class RunGroup:
    """The processes of one run, as one of them sees them.

    Args:
        rank: this process's number; 0 leads.
        world: how many there are.
        store: where names and values are left for each other; None: this process is alone.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Store | None = None) -> None:
        self.rank, self.world, self._store = rank, world, store

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides and writes."""
        return self.rank == 0

    def announce(self, name: str, value: Any = None) -> None:
        """Leave plain data for the others to hear."""
        if self._store is not None:
            with self._reaching():
                self._store.set(name, json.dumps(value))

    def hear(self, name: str, stopping: Callable[[], bool]) -> Any:
        """What the leader announces under this name, however long that takes.

        Raises:
            ToldElsewhere: another process has failed.
            Interrupted: this one was asked to stop, and the leader doesn't answer.
            UserError: the leader is gone.
        """
        assert self._store is not None
        asked, pause = 0.0, 0.001
        with self._reaching():
            while not self._store.check([name]):
                self._leave_with_others()
                if stopping() and not asked:
                    asked = time.monotonic()
                    self._store.set("stop", "asked")  # the leader knows how to stop the work that it is at
                if asked and time.monotonic() - asked > ANSWER_SECONDS:
                    raise Interrupted(
                        "stopped; the first process didn't answer",
                        remedy="Run the same command again to go on.",
                        code="stopped",
                    )
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            return json.loads(self._store.get(name))

    def asked_to_stop(self) -> bool:
        """Whether any process was asked to stop while it waited."""
        try:
            return self._store is not None and self._store.check(["stop"])
        except RuntimeError:
            return False  # whatever is wrong will be told where the store is needed

    def fail(self, error: BaseException) -> None:
        """Be the first to tell of a failure.

        Raises:
            ToldElsewhere: another process was first.
        """
        if self._store is None or isinstance(error, ToldElsewhere):
            return
        mine = {"rank": self.rank, "code": exit_code(error), "message": str(error) or type(error).__name__}
        try:
            told = json.loads(self._store.compare_set("failure", "", json.dumps(mine)))
        except RuntimeError:
            self._store = None  # nobody else can tell
            return
        if told != mine:
            raise ToldElsewhere(told["message"], told["code"]) from error

    def leave(self) -> None:
        """End together: a leader that keeps the store stays a moment for those that have not heard the last word yet."""
        if self._store is None or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return
        with contextlib.suppress(RuntimeError):
            gone, until = self._store.add("gone", 1), time.monotonic() + LEAVE_SECONDS
            while self.leads and gone < self.world and time.monotonic() < until:
                time.sleep(0.01)
                gone = self._store.add("gone", 0)

    def _leave_with_others(self) -> None:
        assert self._store is not None
        if self._store.check(["failure"]):
            told = json.loads(self._store.get("failure"))
            raise ToldElsewhere(told["message"], told["code"])

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self._store = None  # it went with the process that kept it
            raise UserError(
                "another process of this run has ended without a word",
                remedy="Start all of them again; what is done stays done, and a training goes on from its last checkpoint.",
                code="process-lost",
            ) from error

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Work together for the length of a ``with`` block: the failure of one process ends the block of all.

        Raises:
            ToldElsewhere: another process has failed and said so.
        """
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self.leave()


ALONE: Final = RunGroup()


def leads() -> bool:
    """Whether this process may speak for the run: it is alone, or the first of several."""
    return _rank_and_world()[0] == 0


def started() -> RunGroup:
    """The processes that a launcher has started for this run.

    Raises:
        UserError: what the launcher has left in the environment makes no sense, or not all processes came.
    """
    rank, world = _rank_and_world()
    if world == 1:
        return ALONE
    return RunGroup(rank, world, PrefixStore(f"corelm/{next(_RUNS)}", _store()))


def _rank_and_world() -> tuple[int, int]:
    """From RANK and WORLD_SIZE, which launchers set; without them the process is alone."""
    told = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, world = (int(number) for number in told)
    except ValueError:
        rank, world = -1, -1
    if not 0 <= rank < world:
        raise _unusable(f"RANK is {told[0]!r} and WORLD_SIZE is {told[1]!r}")
    return (rank, world) if "RANK" in os.environ else (0, 1)


@cache
def _store() -> Store:
    try:
        store: Store = next(rendezvous("env://", timeout=COMING))[0]
    except (ValueError, RuntimeError) as error:
        raise _unusable(f"the processes don't find each other: {str(error).splitlines()[0]}") from error
    return store


def _unusable(what: str) -> UserError:
    return UserError(
        what,
        remedy="Start them with `torchrun` or `accelerate launch`; for one process alone, unset RANK and WORLD_SIZE.",
        code="no-process-group",
    )
