"""Decoding one row (greedy, with a state) against other libraries, interleaved.

    python benchmarks/generate.py
    python benchmarks/generate.py --sizes llama --precisions bf16

The limit of decoding is the memory's speed: every weight is read once per token. It is measured in the same run, by
adding up as many bytes as the weights have.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from peers import PeerError, Worker, machine

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"shape": "gpt2", "heads": 12, "kv_heads": 12, "width": 3072, "vocabulary": 50257},
    "llama": {"shape": "llama", "heads": 12, "kv_heads": 4, "width": 2048, "vocabulary": 32000},
}
COMMON = {"dim": 768, "layers": 12, "context": 1024, "batch": 1}
PEERS = {
    "corelm": "generate_corelm.py",
    "transformers": "generate_transformers.py",
    "litgpt": "generate_litgpt.py",
}


def bytes_per_second(threads: int) -> float:
    """How fast this machine reads memory: the best of several sums over 512 MB."""
    import torch

    torch.set_num_threads(threads)
    block = torch.ones(1 << 27)
    best = 0.0
    for _ in range(5):
        begun = time.perf_counter()
        block.sum()
        best = max(best, 4 * block.numel() / (time.perf_counter() - begun))
    return best


def measure(size: dict[str, Any], precision: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Seconds per token of every library, in turns."""
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, Any]] = {}
    try:
        for name in options.peers:
            worker = Worker(PEERS[name], name, options.environments)
            try:
                facts = worker.ask("setup", size=size, precision=precision, threads=options.threads)
                worker.ask("generate", count=8)
            except PeerError as error:
                print(f"  {name}: left out: {error}", flush=True)
                worker.stop()
                continue
            workers[name], found[name] = worker, {**facts, "prompt": [], "seconds": []}
        for _ in range(options.rounds):
            for name, worker in workers.items():
                answer = worker.ask("generate", count=options.tokens)
                found[name]["prompt"].append(answer["prompt"])
                found[name]["seconds"].append(answer["seconds"] / options.tokens)
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def table(found: dict[str, dict[str, Any]], size: dict[str, Any], precision: str, speed: float) -> str:
    """Tokens per second, the share of the memory's limit, the prompt; fastest first."""
    width = 2 if precision == "bf16" else 4
    lines = [
        "| | tokens/s | ÷ memory's limit | ms per token: median (min–max) | prompt ms |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(found.items(), key=lambda item: statistics.median(item[1]["seconds"])):
        seconds = row["seconds"]
        middle = statistics.median(seconds)
        tied = size["shape"] == "gpt2" and name != "litgpt"
        looked_up = 0 if tied else size["dim"] * size["vocabulary"]
        limit = width * (row["parameters"] - looked_up) / speed
        spread = f"{1e3 * middle:.1f} ({1e3 * min(seconds):.1f}–{1e3 * max(seconds):.1f})"
        prompt = 1e3 * statistics.median(row["prompt"])
        lines.append(f"| {name} | {1 / middle:.1f} | {limit / middle:.2f} | {spread} | {prompt:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "corelm-benchmarks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=128)
    options = parser.parse_args()
    speed = bytes_per_second(options.threads)
    for name in options.sizes:
        size = {**COMMON, **SIZES[name], "prompt": options.prompt}
        for precision in options.precisions:
            print(
                f"\n## {name}, {precision}: {machine(options.threads)}; memory {speed / 1e9:.0f} GB/s\n", flush=True
            )
            print(table(measure(size, precision, options), size, precision, speed), flush=True)


if __name__ == "__main__":
    main()
