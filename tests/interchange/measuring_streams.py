"""Measures the memory of an import or an export: ``python measuring_streams.py import|export SOURCE TARGET``.

Prints the largest resident set, less what the program holds before it begins, in bytes.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from corelm_interchange.hugging_face import HuggingFace

from corelm.conformance.tiny import Silent
from corelm.kinds import Spec
from corelm.model import loading

LARGEST = 512 * 10**6


def main(direction: str, source: Path, target: Path) -> None:
    part = HuggingFace(HuggingFace.Config(shard=LARGEST, compared=0))
    Spec.read("attention", {"use": "gqa", "heads": 1})
    torch.randn(64, 64) @ torch.randn(64, 64)
    process = psutil.Process()
    before = largest = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.is_set():
            largest = max(largest, process.memory_info().rss)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    if direction == "import":
        loading.save_imported(part.read(source), target)
    else:
        target.mkdir()
        part.write(loading.load(source), target, Silent())
    done.set()
    thread.join()
    print(largest - before)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
