"""Runs commands in two processes each, without a launcher that ends one after the other.

Run as a script: ``ranks.py SCENARIOS``, a JSON list of ``{"command": […], "interrupt": {"rank", "file", "text"}}``: where
``interrupt`` is given, that process gets a SIGINT as soon as the file holds the text. Prints, for each scenario, what each
process ended with and said. Processes are forked from one that has imported everything but computed nothing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from corelm_training import accelerate as _imported_before_the_forks

import corelm.pipeline.runner as _runner
from corelm.cli import main

IMPORTED = (_imported_before_the_forks, _runner)


def forked(rank: int, port: int, command: list[str], output: Path) -> int:
    """Start one of the two; its process id."""
    child = os.fork()
    if child:
        return child
    where = os.open(output, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(where, stream)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    code = 1
    try:
        code = main(command)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def play(scenario: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Both processes of one scenario, from start to end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = [folder / f"{rank}.txt" for rank in range(2)]
    children = [forked(rank, port, scenario["command"], output) for rank, output in enumerate(outputs)]
    interrupt, codes = scenario.get("interrupt"), [None, None]
    until = time.monotonic() + 90
    while None in codes and time.monotonic() < until:
        if (
            interrupt
            and Path(interrupt["file"]).exists()
            and interrupt["text"] in Path(interrupt["file"]).read_text()
        ):
            os.kill(children[interrupt["rank"]], signal.SIGINT)
            interrupt = None
        for rank, child in enumerate(children):
            if codes[rank] is None:
                ended, status = os.waitpid(child, os.WNOHANG)
                codes[rank] = os.waitstatus_to_exitcode(status) if ended else None
        time.sleep(0.01)
    for child, code in zip(children, codes, strict=True):
        if code is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return [{"code": code, "said": output.read_text()} for code, output in zip(codes, outputs, strict=True)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    played = []
    for scenario in json.loads(sys.argv[1]):
        with tempfile.TemporaryDirectory() as made:
            played.append(play(scenario, Path(made)))
    print(json.dumps(played))
