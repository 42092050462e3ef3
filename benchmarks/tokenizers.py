"""Byte-pair encoding against other libraries, interleaved: learning vocabularies, encoding, memory.

    python benchmarks/tokenizers.py                     English and code, 8k and 32k, encoding on one thread and two
    python benchmarks/tokenizers.py --corpora english --sizes 8192 --megabytes 2 --rounds 1

Every library is a worker of its own, so that the memory is its own. All of one table take turns, so that a change of
the machine's speed falls on all alike; figures are medians over all rounds. Encoding is of documents of 4096
characters, first with a tokenizer that is new, then again with what it remembers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers import PeerError, Worker, machine

PEERS = ["corelm", "tokenizers", "tiktoken", "sentencepiece", "rustbpe"]
REFERENCE = "tokenizers"
Answers = dict[str, list[dict[str, float]]]


def english(data: Path) -> Iterator[Path]:
    """Books, then an encyclopedia, stories, plays."""
    for folder in ("classic-books", "wikitext-2", "tinystories", "tinyshakespeare"):
        yield from sorted((data / folder).glob("*.txt"))


def code(data: Path) -> Iterator[Path]:
    """Python's standard library, then what is installed beside it."""
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        yield from (
            path for path in sorted(Path(root).rglob("*.py")) if "site-packages" not in str(path.relative_to(root))
        )


CORPORA: dict[str, Callable[[Path], Iterator[Path]]] = {"english": english, "code": code}


def chosen(corpus: str, options: argparse.Namespace) -> tuple[list[str], float]:
    """Files of a corpus that are UTF-8, up to so many megabytes; and their size."""
    paths, size = [], 0
    for path in CORPORA[corpus](options.data):
        if size >= 1e6 * options.megabytes:
            break
        content = path.read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError:
            continue
        paths.append(str(path))
        size += len(content)
    return paths, size / 1e6


def measure(command: str, arguments: dict[str, Any], paths: list[str], threads: int, options: Any) -> Answers:
    """What every library answers to a command, in turns."""
    workers: dict[str, Worker] = {}
    found: Answers = {}
    try:
        for name in options.peers:
            worker = Worker(f"tokenize_{name}.py", name, options.environments)
            workers[name], found[name] = worker, []
            try:
                worker.ask("setup", paths=paths, threads=threads)
            except PeerError as error:
                print(f"  {name}: left out: {error}", flush=True)
                del workers[name], found[name]
                worker.stop()
        for _ in range(options.rounds):
            for name in list(workers):
                try:
                    found[name].append(workers[name].ask(command, **arguments))
                except PeerError as error:
                    print(f"  {name}: left out: {error}", flush=True)
                    del found[name]
                    workers.pop(name).stop()
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def middle(answers: list[dict[str, float]], key: str) -> float:
    """The median over rounds."""
    return statistics.median(answer[key] for answer in answers)


def learning_table(found: Answers) -> str:
    """Seconds, what processors spent, memory after the first round; fastest first."""
    limit = middle(found[REFERENCE], "seconds") if REFERENCE in found else float("nan")
    lines = [
        "| | seconds: median (min–max) | ÷ tokenizers | processor seconds | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for name, answers in sorted(found.items(), key=lambda item: middle(item[1], "seconds")):
        seconds = [answer["seconds"] for answer in answers]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"
        ratio, spent = statistics.median(seconds) / limit, middle(answers, "spent")
        lines.append(f"| {name} | {spread} | {ratio:.2f} | {spent:.2f} | {answers[0]['peak']:.0f} |")
    return "\n".join(lines)


def encoding_table(found: Answers, megabytes: float) -> str:
    """Megabytes per second, new and again, tokens, memory after the first round; fastest first."""
    limit = middle(found[REFERENCE], "first") if REFERENCE in found else float("nan")
    lines = [
        "| | MB/s, new | MB/s, again | again: min–max | new ÷ tokenizers | tokens | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, answers in sorted(found.items(), key=lambda item: middle(item[1], "first")):
        first, again = middle(answers, "first"), middle(answers, "again")
        speeds = sorted(megabytes / answer["again"] for answer in answers)
        lines.append(
            f"| {name} | {megabytes / first:.1f} | {megabytes / again:.1f} | {speeds[0]:.1f}–{speeds[-1]:.1f} "
            f"| {limit / first:.2f} | {answers[0]['tokens']:,} | {answers[0]['peak']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    data = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[1] / "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--tasks", nargs="+", choices=["learn", "encode"], default=["learn", "encode"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8192, 32768], help="vocabularies")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "corelm-benchmarks")
    parser.add_argument("--data", type=Path, default=data, help="folder of the English texts")
    parser.add_argument("--megabytes", type=float, default=10.5, help="of each corpus, at least")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for corpus in options.corpora:
        paths, megabytes = chosen(corpus, options)
        for size in options.sizes:
            title = f"{corpus}, {megabytes:.1f} MB in {len(paths)} files, {size} pieces"
            if "learn" in options.tasks:
                print(f"\n## Learning: {title}: {machine(options.threads)}\n", flush=True)
                print(learning_table(measure("train", {"size": size}, paths, options.threads, options)), flush=True)
            if "encode" in options.tasks:
                for threads in sorted({1, options.threads}):
                    print(f"\n## Encoding: {title}: {machine(threads)}\n", flush=True)
                    with tempfile.TemporaryDirectory() as folder:
                        arguments = {"folder": folder, "size": size}
                        found = measure("run", arguments, paths, threads, options)
                        print(encoding_table(found, megabytes), flush=True)


if __name__ == "__main__":
    main()
