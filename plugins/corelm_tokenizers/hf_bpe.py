"""Byte-pair encoding by the ``tokenizers`` library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import ClassVar

from tokenizers import trainers

from corelm_tokenizers import library
from corelm_tokenizers.byte_letters import spelling
from corelm_tokenizers.byte_pairs import LearnsMerges
from corelm_tokenizers.patterns import splitter
from corelm_tokenizers.vocabulary import Merge, check_scalars


class LibraryBytePairTokenizer(LearnsMerges):
    """Byte-level byte-pair encoding by the ``tokenizers`` library.

    The same ids as ``bpe`` on the same merges, and the same merges from the same text; each reads what the other
    saved. Trains and encodes faster. Words are cut by the library's regular expressions, with all classes spelt out
    as ranges, since engines differ in their version of Unicode.
    """

    library: ClassVar[str | None] = "tokenizers"

    def _learn(self, documents: Iterable[str], room: int) -> list[Merge]:
        learner = library.untrained(self.config.pattern)
        trainer = trainers.BpeTrainer(
            vocab_size=256 + room, initial_alphabet=list(spelling()), show_progress=False, special_tokens=[]
        )
        learner.train_from_iterator(documents, trainer)
        return library.merges_of(json.loads(learner.to_str()))

    def _set(self, merges: Sequence[Merge], specials: Sequence[str]) -> None:
        super()._set(merges, specials)
        self._encoder = library.with_merges(self.merges, self.config.pattern)

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Encode each text as ``encode`` does, on all processors."""
        if allow_special:
            return [self.encode(text, allow_special=True) for text in texts]
        self._trained()
        for text in texts:
            check_scalars(text)
        return [encoding.ids for encoding in self._encoder.encode_batch_fast(list(texts))]

    def _encode_plain(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._encoder.encode_batch_fast([text])[0].ids
        except TypeError:  # the library takes no surrogate escapes
            return self._encode_broken(text)
        return ids

    def _encode_broken(self, text: str) -> list[int]:
        """Ids of a text in which bytes that are no UTF-8 stand as surrogate escapes: cut here, joined by the library."""
        spell, cut, model = spelling(), splitter(self.config.pattern), self._encoder.model
        words = [text] if cut is None else cut.findall(text)
        spelt = ("".join(spell[value] for value in word.encode("utf-8", "surrogateescape")) for word in words)
        return [token.id for word in spelt for token in model.tokenize(word)]
