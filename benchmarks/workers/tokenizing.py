"""What every tokenizer's worker does: learn a vocabulary from files, encode them, say what time and memory it took."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol import serve

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How words are cut in all of them, but for SentencePiece, which has its own way."""
PIECE, BATCH = 4096, 256


class Tokenizing(ABC):
    """One library. A subclass imports it, learns with it, takes a vocabulary and encodes."""

    def setup(self, paths: list[str], threads: int) -> None:
        """Remember the files, tell the library how many threads it has, import it."""
        self.paths, self.threads = paths, threads
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        self.load()

    def documents(self) -> Iterator[str]:
        """The files' texts, read when they are asked for."""
        for path in self.paths:
            yield Path(path).read_text(encoding="utf-8")

    def train(self, size: int) -> dict[str, float]:
        """Learn a vocabulary; seconds, and what processors spent."""
        begun, spent = time.perf_counter(), time.process_time()
        self.learn(size)
        return {"seconds": time.perf_counter() - begun, "spent": time.process_time() - spent, "peak": self.peak()}

    def run(self, folder: str, size: int) -> dict[str, float]:
        """Encode everything with a tokenizer that is new, then once more with what it remembers."""
        self.take(Path(folder), size)
        first, tokens = self._pass()
        again, _ = self._pass()
        return {"first": first, "again": again, "tokens": tokens, "peak": self.peak()}

    def peak(self) -> float:
        """MiB of memory that this process had at most; ``getrusage`` would count what its parent had."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    def _pass(self) -> tuple[float, int]:
        seconds, tokens, batch = 0.0, 0, []
        for document in self.documents():
            batch += [document[start : start + PIECE] for start in range(0, len(document), PIECE)]
            if len(batch) >= BATCH:
                begun = time.perf_counter()
                ids = self.encode(batch)
                seconds += time.perf_counter() - begun
                tokens += sum(map(len, ids))
                batch = []
        begun = time.perf_counter()
        ids = self.encode(batch)
        return seconds + time.perf_counter() - begun, tokens + sum(map(len, ids))

    @abstractmethod
    def load(self) -> None:
        """Import the library."""

    @abstractmethod
    def learn(self, size: int) -> Any:
        """Learn a vocabulary of so many pieces from the documents."""

    @abstractmethod
    def take(self, folder: Path, size: int) -> None:
        """A new tokenizer with the vocabulary that corelm saved there; who can't read merges learns one."""

    @abstractmethod
    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text."""

    def serve(self) -> None:
        """Answer commands."""
        serve({"setup": self.setup, "train": self.train, "run": self.run})


def merges_in(folder: Path) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Bytes of each id, and the merges, of a vocabulary that corelm learnt and saved."""
    merges = [tuple(merge) for merge in json.loads((folder / "vocabulary.json").read_bytes())["merges"]]
    pieces = [bytes([value]) for value in range(256)]
    for left, right in merges:
        pieces.append(pieces[left] + pieces[right])
    return pieces, merges
