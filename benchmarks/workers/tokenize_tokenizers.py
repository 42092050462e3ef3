"""Byte-level BPE of the library tokenizers, cut by its own ByteLevel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizing import Tokenizing, merges_in


class Library(Tokenizing):
    """``BpeTrainer`` and ``encode_batch_fast``."""

    def load(self) -> None:
        """Import it."""
        import tokenizers

        self.library = tokenizers

    def new(self, model: Any) -> Any:
        """A tokenizer around a model."""
        tokenizer = self.library.Tokenizer(model)
        tokenizer.pre_tokenizer = self.library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer

    def learn(self, size: int) -> Any:
        """Learn merges."""
        tokenizer = self.new(self.library.models.BPE())
        alphabet = self.library.pre_tokenizers.ByteLevel.alphabet()
        trainer = self.library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(self.documents(), trainer)
        return tokenizer

    def take(self, folder: Path, size: int) -> None:
        """The same pieces, spelt in the library's alphabet of bytes."""
        pieces, merges = merges_in(folder)
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [value for value in range(256) if value not in shown]
        letters = {value: chr(value) for value in shown} | {value: chr(256 + n) for n, value in enumerate(hidden)}
        spelt = ["".join(letters[value] for value in piece) for piece in pieces]
        numbers = {piece: number for number, piece in enumerate(spelt)}
        pairs = [(spelt[left], spelt[right]) for left, right in merges]
        self.tokenizer = self.new(self.library.models.BPE(vocab=numbers, merges=pairs))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)]


if __name__ == "__main__":
    Library().serve()
