"""Peak memory of corpus and tokens, for texts of several sizes.

Run as a script: ``measuring_memory.py FOLDER MEGABYTES…``; prints a peak in megabytes for each size. Each run is a
fork of one process that has imported everything.
"""

from __future__ import annotations

import os
import random
import resource
import sys
from pathlib import Path

from corelm.pipeline.runner import run
from corelm.recipe.reader import Recipe

RECIPE = """\
corelm: 1
name: large
corpus:
  source: {use: text-files, paths: [text.txt], separator: "\\n\\n"}
  clean: [unicode-nfc, exact-dedup]
  holdout: 0.01
tokenizer: bytes
trackers: []
"""


def write(folder: Path, megabytes: int) -> None:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    words = [f"word{number}" for number in range(999)]
    draw = random.Random(0)
    paragraph = " ".join(draw.choices(words, k=700))
    with (folder / "text.txt").open("w") as file:
        for number in range(megabytes * 1_000_000 // (len(paragraph) + 8)):
            file.write(f"{number:06} {paragraph}\n\n")


def main(folder: Path, sizes: list[int]) -> None:
    for size in sizes:
        write(folder / str(size), size)
        recipe = Recipe.read(folder / str(size) / "recipe.yaml")
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = run(recipe, folder / str(size) / "runs")
            assert result["tokens"].figures["tokens"] > size * 900_000
            print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000, flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])
