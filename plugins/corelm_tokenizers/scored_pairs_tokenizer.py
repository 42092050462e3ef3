"""Byte-pair encoding of characters with fallback to bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

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

    def as_tokenizers_json(self) -> str | None:
        """None: that library joins by merges, and has no words for joining whatever spells a piece."""
        self._ready  # noqa: B018 (an untrained one says so)
        return None


def kinds_of(pieces: Sequence[Scored]) -> list[tuple[str, float, str]]:
    """Pieces with their kinds: the unknown, the 256 bytes, those learnt."""
    kinds = ["unknown", *["byte"] * 256, *["normal"] * (len(pieces) - 257)]
    return [(piece, score, kind) for (piece, score), kind in zip(pieces, kinds, strict=True)]
