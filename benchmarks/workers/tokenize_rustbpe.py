"""rustbpe; it can't take merges of others, so it learns its own from the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizing import GPT2, Tokenizing


class Library(Tokenizing):
    """``rustbpe.Tokenizer``."""

    tokenizer: Any = None

    def load(self) -> None:
        """Import it."""
        import rustbpe

        self.library = rustbpe

    def learn(self, size: int) -> Any:
        """Learn merges."""
        tokenizer = self.library.Tokenizer()
        tokenizer.train_from_iterator(self.documents(), size, pattern=GPT2)
        return tokenizer

    def take(self, folder: Path, size: int) -> None:
        """One of its own, learnt once; it remembers nothing, so it is always new."""
        self.tokenizer = self.tokenizer or self.learn(size)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids."""
        if self.threads == 1:
            return [self.tokenizer.encode(text) for text in texts]
        return self.tokenizer.batch_encode(texts)


if __name__ == "__main__":
    Library().serve()
