"""SentencePiece's BPE, on lines, with its own way of cutting words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tokenizing import Tokenizing


class Library(Tokenizing):
    """``SentencePieceTrainer`` and ``SentencePieceProcessor``."""

    def load(self) -> None:
        """Import it."""
        import sentencepiece

        self.library = sentencepiece

    def learn(self, size: int) -> Any:
        """Learn a vocabulary."""
        written = io.BytesIO()
        self.library.SentencePieceTrainer.train(
            sentence_iterator=(line for document in self.documents() for line in document.splitlines()),
            model_writer=written,
            model_type="bpe",
            vocab_size=size,
            num_threads=self.threads,
            max_sentence_length=2**20,
            minloglevel=2,
        )
        return written.getvalue()

    def take(self, folder: Path, size: int) -> None:
        """One of its own, learnt once."""
        path = folder / "sentencepiece.model"
        if not path.exists():
            path.write_bytes(self.learn(size))
        self.tokenizer = self.library.SentencePieceProcessor(model_proto=path.read_bytes())

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids."""
        return self.tokenizer.encode(texts, num_threads=self.threads)


if __name__ == "__main__":
    Library().serve()
