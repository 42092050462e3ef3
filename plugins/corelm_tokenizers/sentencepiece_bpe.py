"""Byte-pair encoding by the ``sentencepiece`` library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from corelm_tokenizers.learnt_pieces import Scored
from corelm_tokenizers.library_models import SentencePiecePairs
from corelm_tokenizers.model import Model
from corelm_tokenizers.scored_pairs_tokenizer import ScoredPairsTokenizer, kinds_of


class SentencePieceBytePairTokenizer(ScoredPairsTokenizer):
    """Byte-pair encoding of characters by the ``sentencepiece`` library.

    The library joins the characters; the same ids as ``fallback-bpe`` on the same pieces; each reads what the other
    saved. Pieces are learnt as ``fallback-bpe`` learns them, which is the library's own way but for where words are
    cut.
    """

    library: ClassVar[str | None] = "sentencepiece"

    def _model(self, pieces: Sequence[Scored]) -> Model:
        return SentencePiecePairs(kinds_of(pieces), every_byte=True)
