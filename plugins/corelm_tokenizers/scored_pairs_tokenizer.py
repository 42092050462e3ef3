"""Byte-pair encoding of characters with fallback to bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from corelm_tokenizers.formats import schema
from corelm_tokenizers.learnt_pieces import Scored
from corelm_tokenizers.model import Model
from corelm_tokenizers.scored_pairs import ScoredPairs
from corelm_tokenizers.scored_pairs_training import learn_scored_pairs
from corelm_tokenizers.sentence_pieces import SentencePieces


class ScoredPairsTokenizer(SentencePieces):
    """Byte-pair encoding of characters in SentencePiece's manner, bytes for rare ones.

    See ``ScoredPairs`` for how words are joined, ``learn_scored_pairs`` for how pieces are learnt, ``SentencePieces``
    for what becomes of spaces and rare characters. Ids of pieces are in the order in which they were joined, the
    single characters after them, the commonest first. The same file is read by ``sentencepiece-bpe``.
    """

    family: ClassVar[str] = "fallback-bpe"
    model_type: ClassVar[str] = "BPE"

    def _learn(self, words: Counter[str], room: int) -> Sequence[Scored]:
        alphabet = self._alphabet(words, room)
        joined = learn_scored_pairs(words, room - len(alphabet), frozenset(alphabet), self.config.longest_piece)
        return [(piece, -float(rank)) for rank, piece in enumerate([*joined, *alphabet])]

    def _described(self, pieces: Sequence[Scored], specials: Sequence[str]) -> dict[str, Any]:
        model = {"type": "SentencePieceBPE", "pieces": kinds_of(pieces), "byte_fallback": True}
        return self._around(model, pieces, specials)

    def _model(self, pieces: Sequence[Scored]) -> Model:
        spelt, scores = zip(*pieces, strict=True)
        return ScoredPairs(spelt, scores, unknown=0, every_byte=True, hidden=range(len(self.outside)))

    def _in_librarys_words(self) -> dict[str, Any] | None:
        """As merges: each piece is joined from the same two parts in every text (``ScoredPairs.merge_of``).

        None where two pieces have one score: of those the leftmost is joined, and merges can't say so.
        """
        scores = [float(np.float32(score)) for _, score in self.learnt]
        if len(set(scores)) < len(scores):
            return None
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        model = ScoredPairs([piece for piece, _ in self.learnt], scores)
        found = (model.merge_of(self.learnt[place][0]) for place in order)
        pieces = [*self.outside, *(piece for piece, _ in self.learnt)]
        told = schema.pairs_model(
            {piece: number for number, piece in enumerate(pieces)}, (merge for merge in found if merge is not None)
        )
        return {**self._told, "model": {**told, "unk_token": pieces[0], "byte_fallback": True}}

    @classmethod
    def _read(cls, data: Any) -> tuple[list[Scored], dict[str, Any]]:
        vocabulary = data["model"]["vocab"]
        if list(vocabulary.values()) != list(range(len(vocabulary))):
            raise ValueError("ids aren't in order")
        first = len(cls.outside)
        return [(piece, -float(number - first)) for piece, number in vocabulary.items()], {}


def kinds_of(pieces: Sequence[Scored]) -> list[tuple[str, float, str]]:
    """Pieces with their kinds: the unknown, the 256 bytes, those learnt."""
    kinds = ["unknown", *["byte"] * 256, *["normal"] * (len(pieces) - 257)]
    return [(piece, score, kind) for (piece, score), kind in zip(pieces, kinds, strict=True)]
