"""Tokenizes a corpus again and again, killed when so many spans are done, until it ends by itself.

Run as a script: ``killing_tokens.py RECIPE OUT SPAN_BYTES BYTES_WORTH_A_PROCESS NOTES…``: one kill for each number of
spans, more of which are done each time. Children are forked from a process that has imported everything but computed
nothing. Prints, for each start, how many spans were done already and are still the same files.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import torch

from corelm.pipeline import tokenizing
from corelm.pipeline.runner import run
from corelm.recipe.reader import Recipe


def notes(scratch: Path) -> dict[str, int]:
    """Which spans are done, and when."""
    return {str(path.relative_to(scratch)): path.stat().st_mtime_ns for path in scratch.glob("*/*.json")}


def main(path: str, out: str, kills: list[int]) -> None:
    torch.set_num_threads(1)
    recipe = Recipe.read(path)
    scratch = Path(out) / recipe.name / ".work" / "tokens" / "scratch"
    final = Path(out) / recipe.name / "tokens"
    for at in [*kills, None]:
        before = notes(scratch)
        child = os.fork()
        if child == 0:
            try:
                run(recipe, out)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        if at is None:
            _, status = os.waitpid(child, 0)
            if status:
                sys.exit("a run that was not killed failed")
            return
        while len(found := notes(scratch)) < at and not final.exists():
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.exit(f"the run ended before {at} spans were done")
            time.sleep(0.001)
        if final.exists():  # it was quicker than this process could look
            os.waitpid(child, 0)
            return
        workers = psutil.Process(child).children()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        gone, alive = psutil.wait_procs(workers, timeout=5)
        if alive:
            sys.exit(f"{len(alive)} processes outlive the run that started them")
        print(len(before), sum(found.get(name) == when for name, when in before.items()), len(gone), flush=True)


if __name__ == "__main__":
    tokenizing.SPAN_BYTES, tokenizing.BYTES_WORTH_A_PROCESS = int(sys.argv[3]), int(sys.argv[4])
    main(sys.argv[1], sys.argv[2], [int(number) for number in sys.argv[5:]])
