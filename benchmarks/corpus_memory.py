"""Peak memory from raw text to batches, for generated corpora of several sizes.

    python benchmarks/corpus_memory.py FOLDER                 100 MB, then 2.2 GB
    python benchmarks/corpus_memory.py FOLDER --sizes 50 500

Each size is cleaned, tokenized and read in a process of its own, which has imported everything before. The folder needs
room for five times the largest size; what was made is removed at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sys
import time
from pathlib import Path

from peers import machine

RECIPE = """\
corelm: 1
name: large
corpus: {source: {use: text-files, paths: [text.txt], separator: "\\n\\n"}, clean: [unicode-nfc], holdout: 0.01}
tokenizer: bytes
trackers: []
"""


def write(folder: Path, megabytes: int) -> None:
    """Paragraphs of 20 to 20,000 characters, most of them short; no two are the same."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    draw = random.Random(0)
    paragraphs = [
        " ".join(f"word{draw.randrange(9999)}" for _ in range(int(min(2500, draw.lognormvariate(4.5, 1.2))) + 2))
        for _ in range(2000)
    ]
    written = number = 0
    with (folder / "text.txt").open("w") as file:
        while written < megabytes * 1_000_000:
            number += 1
            written += file.write(f"{number:09} {paragraphs[number % 2000]}\n\n")


def measure(folder: Path) -> None:
    """Run the recipe and read batches; print what it took. Ends the process."""
    from corelm.kinds import Spec
    from corelm.pipeline.runner import run
    from corelm.pipeline.tokens import DiskTokens

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    result = run(folder / "recipe.yaml", folder / "runs")
    made = time.perf_counter() - begun
    prepared = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    store = DiskTokens(result.folder / "tokens" / "train")
    stream = Spec.read("packer", "blocks").build().stream(store, batch=16, time=1024, seed=0, end_of_text=256)
    anonymous = status("RssAnon")
    for _ in range(2000):
        next(stream)
    print(
        f"| {(folder / 'text.txt').stat().st_size / 1e6:,.0f} | {len(store):,} | {store.tokens / 1e6:,.0f} | {made:.0f} "
        f"| {prepared / 1e3:.0f} | {workers / 1e3:.0f} | {(status('RssAnon') - anonymous) / 1e3:.0f} |",
        flush=True,
    )


def status(name: str) -> int:
    """A figure of this process, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 2200], help="megabytes of text")
    options = parser.parse_args()
    import corelm.pipeline.runner  # noqa: F401 (before the forks: what is imported is no one's growth)

    print(f"{machine(1)}\n")
    print("| MB of text | documents | million tokens | seconds | growth, MB | a worker's peak, MB | reading, MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for size in options.sizes:
        folder = options.folder / str(size)
        write(folder, size)
        child = os.fork()
        if child == 0:
            measure(folder)
            os._exit(0)
        _, ended = os.waitpid(child, 0)
        shutil.rmtree(folder)
        if ended:
            sys.exit(1)


if __name__ == "__main__":
    main()
