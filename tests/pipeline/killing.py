"""Runs a recipe again and again, killed at random moments, until it ends by itself.

Run as a script: ``killing.py RECIPE OUT KILLS SEED``. Children are forked from a process that has imported
everything but computed nothing, so that a kill costs no start-up.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import torch

from corelm.pipeline.runner import run
from corelm.recipe.reader import Recipe


def main(path: str, out: str, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    recipe = Recipe.read(path)
    moments = random.Random(seed)
    killed = 0
    while True:
        child = os.fork()
        if child == 0:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            try:
                run(recipe, out)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        ended = wait(child, moments.expovariate(1.0) * 0.6 if killed < kills else 600.0)
        if ended is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
        elif ended != 0:
            sys.exit(f"a run that was not killed failed (after {killed} kills)")
        elif killed >= kills:
            print(f"{killed} kills")
            return
        else:
            sys.exit(f"the run ended after {killed} of {kills} kills: too quick to be killed that often")


def wait(child: int, seconds: float) -> int | None:
    """Exit status of the child, or None when it is still at work after this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
