"""Tokens per second from a store on disk to batches of tensors, in the page cache, beside a peer that does less.

    python benchmarks/loading.py FOLDER              makes a store of 100 million tokens there, once

The peer is the loader of nanoGPT (Karpathy, 2022), written anew: random windows of one memory-mapped file. It knows no
documents and no epochs; it can't be resumed, and draws some tokens twice and others never. All take turns, so that a
change of the machine's speed falls on all alike; figures are medians over all rounds. "Two processes" are two ranks that
read at the same time: tokens of both, and each one's processor time. Where others use the machine, too, tokens by
processor time are what tells.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import machine

from corelm.kinds import Batch, Spec, Tokens
from corelm.pipeline.tokens import DiskTokens, write_tokens

VOCABULARY, END = 50257, 50256
BATCH, TIME = 16, 1024
MIXES = {"short and long": (5.5, 1.2, 50_000), "short": (4.0, 0.8, 500), "long": (8.5, 1.0, 500_000)}
"""Mean and deviation of the logarithm of documents' lengths, and the longest."""


def documents(mix: str, tokens: int) -> Iterator[Tokens]:
    """Documents of random tokens."""
    mean, deviation, longest = MIXES[mix]
    draw, made = np.random.default_rng(0), 0
    while made < tokens:
        length = int(min(longest, draw.lognormal(mean, deviation))) + 1
        made += length
        yield Tokens(draw.integers(0, END, length), name=f"document at {made}")


def ours(packer: str, store: Path, rank: int = 0, world: int = 1) -> Callable[[], Batch]:
    """A packer's batches."""
    part = Spec.read("packer", packer).build()
    stream = part.stream(DiskTokens(store), batch=BATCH, time=TIME, seed=0, end_of_text=END, rank=rank, world=world)
    return lambda: next(stream)


def windows(file: Path) -> Callable[[], Batch]:
    """Random windows of one long row of tokens."""
    draw = torch.Generator().manual_seed(0)

    def next_batch() -> Batch:
        data = np.memmap(file, dtype=np.uint16, mode="r")
        starts = torch.randint(len(data) - TIME, (BATCH,), generator=draw).tolist()
        ids = torch.stack([torch.from_numpy(data[at : at + TIME].astype(np.int64)) for at in starts])
        targets = torch.stack([torch.from_numpy(data[at + 1 : at + 1 + TIME].astype(np.int64)) for at in starts])
        return Batch(ids, targets)

    return next_batch


Rate = tuple[float, float]
"""Million real tokens per second, and per second of processor time."""


def timed(next_batch: Callable[[], Batch], batches: int) -> Rate:
    """How quick a loader is."""
    begun, used = time.perf_counter(), time.process_time()
    tokens = sum(next_batch().tokens for _ in range(batches)) / 1e6
    return tokens / (time.perf_counter() - begun), tokens / (time.process_time() - used)


def serve(pipe: Any, packer: str, store: Path, rank: int, world: int) -> None:
    """One of several processes: times when it is told to."""
    torch.set_num_threads(1)
    next_batch = ours(packer, store, rank, world)
    while (batches := pipe.recv()) is not None:
        pipe.send(timed(next_batch, batches))


class Together:
    """Two processes that read at the same time."""

    def __init__(self, packer: str, store: Path) -> None:
        started = multiprocessing.get_context("spawn")
        self.pipes = []
        for rank in range(2):
            here, there = started.Pipe()
            started.Process(target=serve, args=(there, packer, store, rank, 2), daemon=True).start()
            self.pipes.append(here)

    def timed(self, batches: int) -> Rate:
        """How quick both are together; the processor time of one."""
        for pipe in self.pipes:
            pipe.send(batches)
        rates = [pipe.recv() for pipe in self.pipes]
        return sum(rate for rate, _ in rates), statistics.mean(used for _, used in rates)

    def stop(self) -> None:
        """End them."""
        for pipe in self.pipes:
            pipe.send(None)


def measure(store: Path, options: argparse.Namespace) -> dict[str, list[Rate]]:
    """Rates of every loader, in turns."""
    made = DiskTokens(store)
    flat = store.parent / "flat.bin"
    with flat.open("wb") as file:
        for index in range(len(made)):
            file.write(made[index].ids.astype(np.uint16).tobytes())
    alone = {packer: ours(packer, store) for packer in ("blocks", "best-fit")}
    alone["random windows"] = windows(flat)
    together = Together("blocks", store)
    for next_batch in alone.values():
        timed(next_batch, options.batches)  # the first round verifies the shards
    together.timed(options.batches)
    found: dict[str, list[Rate]] = {name: [] for name in [*alone, "blocks, two processes"]}
    for _ in range(options.rounds):
        for name, next_batch in alone.items():
            found[name].append(timed(next_batch, options.batches))
        found["blocks, two processes"].append(together.timed(options.batches))
    together.stop()
    flat.unlink()
    return found


def table(found: dict[str, list[Rate]]) -> str:
    """Medians and the spread, fastest first."""
    lines = [
        "| | million tokens/s: median (min–max) | million tokens per processor second |",
        "|---|---|---|",
    ]
    for name, rates in sorted(found.items(), key=lambda row: -statistics.median(rate for rate, _ in row[1])):
        wall, used = zip(*rates, strict=True)
        lines.append(
            f"| {name} | {statistics.median(wall):.1f} ({min(wall):.1f}–{max(wall):.1f}) | {statistics.median(used):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=list(MIXES))
    parser.add_argument("--millions", type=int, default=100, help="tokens of each store")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=500, help="of each loader in each round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for mix in options.mixes:
        store = options.folder / mix.replace(" ", "-") / "tokens"
        if not (store / "tokens.json").exists():
            store.parent.mkdir(parents=True, exist_ok=True)
            write_tokens(store, documents(mix, options.millions * 1_000_000), VOCABULARY)
        made = DiskTokens(store)
        print(f"\n## {mix} documents, {made.tokens // len(made):,} tokens each: {machine(1)}\n", flush=True)
        print(table(measure(store, options)), flush=True)


if __name__ == "__main__":
    main()
