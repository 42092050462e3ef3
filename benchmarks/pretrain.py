"""One training step (forward, backward, fused AdamW) against other libraries, interleaved.

    python benchmarks/pretrain.py                       every size, bf16 and fp32, eager and compiled
    python benchmarks/pretrain.py --sizes A --precisions bf16 --modes eager

Every library is a worker in an environment of its own. All of one table take turns, a few steps each, so that a
change of the machine's speed falls on all alike; figures are medians over all rounds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from peers import PeerError, Worker, machine

SIZES: dict[str, dict[str, Any]] = {
    "A": {"dim": 256, "layers": 4, "heads": 8, "width": 704, "vocabulary": 4096, "context": 256, "batch": 16},
    "B": {"dim": 384, "layers": 6, "heads": 6, "width": 1024, "vocabulary": 8192, "context": 256, "batch": 12},
    "C": {"dim": 768, "layers": 12, "heads": 12, "width": 2048, "vocabulary": 50257, "context": 512, "batch": 2},
}
PEERS = {
    "corelm": "pretrain_corelm.py",
    "transformers": "pretrain_transformers.py",
    "litgpt": "pretrain_litgpt.py",
    "x-transformers": "pretrain_x_transformers.py",
}


def measure(
    size: dict[str, Any], precision: str, modes: list[str], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Seconds per step of the bare products and of every library and mode, in turns."""
    entries = {"bare products": ("matmuls", "pretrain_matmuls.py", "eager")}
    for peer in options.peers:
        for mode in modes:
            entries[f"{peer}, {mode}"] = (peer, PEERS[peer], mode)
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, Any]] = {}
    try:
        for name, (peer, script, mode) in entries.items():
            worker = Worker(script, peer, options.environments)
            try:
                facts = worker.ask(
                    "setup", size=size, precision=precision, compiled=mode == "compiled", threads=options.threads
                )
                worker.ask("steps", count=options.warm_up)
            except PeerError as error:
                print(f"  {name}: left out: {error}", flush=True)
                worker.stop()
                continue
            workers[name], found[name] = worker, {**facts, "seconds": [], "losses": []}
        for _ in range(options.rounds):
            for name, worker in workers.items():
                answer = worker.ask("steps", count=options.steps)
                found[name]["seconds"] += answer["seconds"]
                found[name]["losses"] += answer["losses"]
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def table(found: dict[str, dict[str, Any]], tokens: int) -> str:
    """Tokens per second, the share of the bare products, and the spread; fastest first."""
    limit = statistics.median(found["bare products"]["seconds"])
    lines = [
        "| | tokens/s | ÷ bare products | ms: median (min–max) | parameters | loss |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in sorted(found.items(), key=lambda item: statistics.median(item[1]["seconds"])):
        seconds = row["seconds"]
        middle = statistics.median(seconds)
        spread = f"{1e3 * middle:.0f} ({1e3 * min(seconds):.0f}–{1e3 * max(seconds):.0f})"
        loss = f"{row['losses'][-1]:.3f}" if row["losses"] else ""
        lines.append(
            f"| {name} | {tokens / middle:,.0f} | {limit / middle:.2f} | {spread} | {row['parameters'] / 1e6:.2f}M | {loss} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--shapes", nargs="+", choices=["llama", "gpt2"], default=["llama", "gpt2"])
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled"], default=["eager", "compiled"])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "corelm-benchmarks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of each library in each round")
    parser.add_argument("--warm-up", type=int, default=3)
    options = parser.parse_args()
    for name in options.sizes:
        for shape in options.shapes:
            size = {**SIZES[name], "shape": shape}
            for precision in options.precisions:
                print(f"\n## {name} ({shape} shape), {precision}: {machine(options.threads)}\n", flush=True)
                found = measure(size, precision, options.modes, options)
                print(table(found, size["batch"] * size["context"]), flush=True)


if __name__ == "__main__":
    main()
