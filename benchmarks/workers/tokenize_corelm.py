"""corelm's own byte-level BPE: plain Python, one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizing import Tokenizing


class Ours(Tokenizing):
    """Part ``bpe``."""

    def load(self) -> None:
        """Import it."""
        from corelm_tokenizers.bpe import BytePairTokenizer

        self.part = BytePairTokenizer

    def learn(self, size: int) -> Any:
        """Learn merges."""
        tokenizer = self.part(self.part.Config(vocab_size=size))
        tokenizer.train(self.documents())
        return tokenizer

    def take(self, folder: Path, size: int) -> None:
        """Load it, or make it where there is none."""
        if not (folder / "vocabulary.json").exists():
            self.learn(size).save(folder)
        self.tokenizer = self.part.load(self.part.Config(vocab_size=size), folder)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids."""
        return self.tokenizer.encode_batch(texts)


if __name__ == "__main__":
    Ours().serve()
