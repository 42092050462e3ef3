"""Processes under a hash seed of their own, in which a part is run on fixed draws; what it gives comes back as a digest.

Starting Python and importing PyTorch takes seconds, so it happens once per hash seed: that process imports nothing of any
part, reads one part per line from its standard input, and holds each in a copy of itself.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from typing import Any, Final

import torch

from corelm.conformance.bench import leaves
from corelm.conformance.framework import Draw, PartUnderTest, known, property_of
from corelm.conformance.running import hold

HASH_SEEDS: Final = ("1", "2")


def digests(kind: str, target: str) -> list[str]:
    """What the part at the import string ``module:Class`` gives on five drawn inputs, under each hash seed.

    Raises:
        AssertionError: the part failed in a fresh process.
    """
    running = [_process(hash_seed, os.getpid()) for hash_seed in HASH_SEEDS]
    try:
        for process in running:  # all are asked before the first is waited for, so that they work at once
            _ask(process, kind, target)
        answers = [_answer(process) for process in running]
    except BaseException:  # an answer may still be under way: these can't be asked again
        for process in running:
            process.kill()
        _process.cache_clear()
        raise
    for answer in answers:
        assert "digest" in answer, f"the fresh process failed: {answer['complaint'].strip()[-400:]}"
    return [answer["digest"] for answer in answers]


@functools.cache
def _process(hash_seed: str, owner: int) -> subprocess.Popen[str]:
    """The process under a hash seed; a copy of this process must not share it, hence the owner's number."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "corelm.conformance.fresh"],
        env={
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(os.path.abspath(folder or ".") for folder in sys.path),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(process.kill)
    return process


def _ask(process: subprocess.Popen[str], kind: str, target: str) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"kind": kind, "target": target, "folder": os.getcwd()}) + "\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    answer: dict[str, str] = json.loads(line) if line else _ended(process.wait())
    return answer


def _ended(code: int) -> dict[str, str]:
    """The complaint about a process that ended without an answer."""
    return {"complaint": f"it ended with {code if code >= 0 else signal.Signals(-code).name}"}


def main() -> None:
    """Answer, line by line, until nobody asks any more."""
    questions, answers = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what parts print must not be taken for an answer
    for line in questions:
        answers.write(json.dumps(_in_a_copy(json.loads(line))) + "\n")
        answers.flush()


def _in_a_copy(question: dict[str, str]) -> dict[str, str]:
    """The answer of a copy of this process, which keeps what the part imports to itself."""
    reading, writing = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(_exercised(question)).encode())
        finally:
            os._exit(0)  # whatever happens, the copy must not read the next question
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        words = told.read()
    code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    return json.loads(words) if words else _ended(code)


def _exercised(question: dict[str, str]) -> dict[str, str]:
    """The digest, or what went wrong."""
    try:
        os.chdir(question["folder"])
        return {"digest": _digest(question["kind"], question["target"])}
    except BaseException:  # parts may also try to exit, when they are imported too
        return {"complaint": traceback.format_exc()[-2000:]}


def _digest(kind: str, target: str) -> str:
    digest = hashlib.sha256()
    module, _, name = target.partition(":")
    part = PartUnderTest(kind, name, given=getattr(importlib.import_module(module), name))

    def exercise(part: PartUnderTest, draw: Draw) -> None:
        subject = part.bench.subject(part, draw)
        for leaf in leaves(part.bench.call(subject, part.bench.inputs(subject, draw))):
            digest.update(_bytes(leaf))

    property_of("fresh", statement="", catches="")(exercise)
    outcome = hold(part, known("fresh")[0], examples=5, seed=11)
    if outcome.status != "passed":
        raise AssertionError(outcome.reason)
    return digest.hexdigest()


def _bytes(leaf: Any) -> bytes:
    if isinstance(leaf, torch.Tensor):
        return leaf.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return repr(leaf).encode()


if __name__ == "__main__":
    main()
