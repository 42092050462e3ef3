"""A process that holds parts to their properties, so that what hangs or crashes takes nobody else with it.

``workers`` starts it, writes one job per line to its standard input and reads what it says, one JSON object per line, from
its standard output. What parts print goes to its standard error.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
from typing import Any, TextIO

from corelm.conformance import importing, limits
from corelm.conformance.framework import PartUnderTest
from corelm.conformance.running import Outcome, may_print, pending
from corelm.conformance.sequence import Options, held, properties
from corelm.conformance.surroundings import printed
from corelm.registration import Record, active


def main() -> None:
    """Work until there are no more jobs."""
    jobs, answers = _channels()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)

    def say(**message: Any) -> None:
        answers.write(f"{json.dumps(message)}\n")
        answers.flush()

    limits.beat = lambda: say(alive=True)
    first = json.loads(jobs.readline() or "{}")
    records = {address(record): record for record in active().parts()}
    for name, why in first.get("unusable", {}).items():
        importing.give_up(records[name], why)
    importing.load_all(records.values(), first.get("seconds", limits.SECONDS), lambda r: say(importing=address(r)))
    say(ready=True)
    for line in jobs:
        _work(json.loads(line), records, say)


def _channels() -> tuple[TextIO, TextIO]:
    """The pipes from and to the keeper, moved to where no part reads or prints by mistake."""
    import torch

    torch.set_num_threads(1)
    jobs, answers = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return jobs, answers


def address(record: Record) -> str:
    """A part's full name, the same in every process."""
    return f"{record.kind}/{record.qualified}"


def _work(job: dict[str, Any], records: dict[str, Record], say: Any) -> None:
    """Hold one part to what is left of its properties."""
    record = records[job["part"]]
    part = PartUnderTest(record.kind, record.name, record)
    _ = part.label  # before parts that hang are left out
    laws = {prop.name: prop for prop in properties(part.kind)}
    before = [
        Outcome(part.label, laws[name], status, reason, kind=part.kind, endless=endless)
        for name, status, reason, endless in job["before"]
    ]
    options = Options(tuple(job["names"]), job["examples"], job["seed"], job["seconds"])
    with importing.usable():
        _printed()
        for outcome in held(part, options, before, lambda prop: say(begin=prop.name)):
            said = _printed()
            if said and outcome.status == "passed" and not may_print(part):
                outcome.status, outcome.reason, outcome.conduct = "failed", printed(said), True
            say(outcome=plain(outcome))
    say(done=True)


def _printed() -> str:
    """What has gone to standard output and error past Python since the last call; the keeper made them one file."""
    ctypes.CDLL(None).fflush(None)  # what C code has printed is still in its buffer
    start, end = _seen[-1], os.fstat(2).st_size
    _seen[-1] = end
    return os.pread(2, end - start, start).decode("utf-8", "replace")


_seen = [0]


def plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as data, but for the property, which goes by its name."""
    return {**{name: value for name, value in vars(outcome).items() if name != "prop"}, "property": outcome.prop.name}


def read(data: dict[str, Any], part: PartUnderTest) -> Outcome:
    """The outcome that ``plain`` made data of."""
    name = data.pop("property")
    prop = next(prop for prop in properties(part.kind) if prop.name == name)
    outcome = pending(part, prop)
    for field, value in data.items():
        setattr(outcome, field, [tuple(item) for item in value] if field == "story" else value)
    return outcome


if __name__ == "__main__":
    main()
