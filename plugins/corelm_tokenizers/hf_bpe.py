"""Byte-pair encoding by the ``tokenizers`` library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tokenizers import trainers

from corelm_tokenizers import library
from corelm_tokenizers.byte_pairs import LearnsMerges
from corelm_tokenizers.vocabulary import Merge, check_scalars


class LibraryBytePairTokenizer(LearnsMerges):
    """Byte-level byte-pair encoding by the ``tokenizers`` library.

    The same ids as ``bpe`` on the same merges, and the same merges from the same text; each reads what the other
    saved. Trains and encodes faster. Words are cut by the library's regular expressions, with all classes spelt out
    as ranges, since engines differ in their version of Unicode.
    """

    def _learn(self, documents: Iterable[str], room: int) -> list[Merge]:
        learner = library.untrained(self.config.pattern)
        trainer = trainers.BpeTrainer(
            vocab_size=256 + room, initial_alphabet=list(library.spelling()), show_progress=False, special_tokens=[]
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
        ids: list[int] = self._encoder.encode_batch_fast([text])[0].ids
        return ids
