"""tiktoken with the pieces that corelm learnt; it doesn't learn itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizing import GPT2, Tokenizing, merges_in


class Library(Tokenizing):
    """``Encoding.encode_ordinary``."""

    def load(self) -> None:
        """Import it."""
        import tiktoken

        self.library = tiktoken

    def learn(self, size: int) -> Any:
        """It has no training."""
        raise NotImplementedError("it has no training")

    def take(self, folder: Path, size: int) -> None:
        """The same pieces."""
        ranks = {piece: number for number, piece in enumerate(merges_in(folder)[0])}
        self.tokenizer = self.library.Encoding(
            "corelm", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)}
        )

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids."""
        if self.threads == 1:
            return [self.tokenizer.encode_ordinary(text) for text in texts]
        return self.tokenizer.encode_ordinary_batch(texts, num_threads=self.threads)


if __name__ == "__main__":
    Library().serve()
