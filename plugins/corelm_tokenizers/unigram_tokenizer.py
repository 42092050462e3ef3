"""Unigram language model tokenizer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from corelm_tokenizers.learnt_pieces import Scored
from corelm_tokenizers.sentence_pieces import SentencePieces
from corelm_tokenizers.unigram import Unigram
from corelm_tokenizers.unigram_training import learn_unigram
from corelm_tokenizers.vocabulary import check_scalars


class UnigramTokenizer(SentencePieces):
    """Unigram language model, learnt from text.

    A word is cut in the most probable way (Kudo, 2018, arXiv:1804.10959). See ``Unigram`` for how ties are broken,
    ``learn_unigram`` for how pieces are learnt, ``SentencePieces`` for what becomes of spaces and rare characters.
    ``sample`` draws other ways, for training on them (subword regularisation). The same file is read by
    ``hf-unigram`` and ``sentencepiece-unigram``.
    """

    _vocabulary: Unigram
    family: ClassVar[str] = "unigram"
    model_type: ClassVar[str] = "Unigram"

    def _learn(self, words: Counter[str], room: int) -> Sequence[Scored]:
        return learn_unigram(words, room, self._alphabet(words, room), self.config.longest_piece)

    def _described(self, pieces: Sequence[Scored], specials: Sequence[str]) -> dict[str, Any]:
        model = {"type": "Unigram", "unk_id": 0, "vocab": [list(piece) for piece in pieces], "byte_fallback": True}
        return self._around(model, pieces, specials)

    def _model(self, pieces: Sequence[Scored]) -> Unigram:
        return Unigram([p for p, _ in pieces], [score for _, score in pieces], unknown=0, every_byte=True)

    @classmethod
    def _read(cls, data: Any) -> tuple[list[Scored], dict[str, Any]]:
        return [(piece, score) for piece, score in data["model"]["vocab"]], {}

    @property
    def scores(self) -> list[float | None]:
        """For each id the logarithm of its piece's probability; None for those that were not learnt."""
        learnt = [score for _, score in self.learnt]
        return [*[None] * len(self.outside), *learnt, *[None] * len(self.specials)]

    def sample(self, text: str, *, alpha: float, generator: random.Random) -> list[int]:
        """Ids of ways drawn word by word, each with its probability to the power of ``alpha``, made to sum to one.

        Args:
            text: in which nothing is special.
            alpha: 0 draws from all ways alike, the more the likelier is the best.
            generator: decides.
        """
        check_scalars(text)
        words = self._ready.words(text)
        return [token for word in words for token in self._vocabulary.sample(word, alpha, generator)]
