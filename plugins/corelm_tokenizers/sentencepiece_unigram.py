"""Unigram language model by the ``sentencepiece`` library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from corelm_tokenizers.learnt_pieces import Scored
from corelm_tokenizers.library_models import SentencePieceUnigram
from corelm_tokenizers.scored_pairs_tokenizer import kinds_of
from corelm_tokenizers.unigram import Unigram
from corelm_tokenizers.unigram_tokenizer import UnigramTokenizer


class SentencePieceUnigramTokenizer(UnigramTokenizer):
    """Unigram language model by the ``sentencepiece`` library.

    The library finds the most probable way; the same ids as ``unigram`` on the same pieces; each reads what the other
    saved. Pieces are learnt as ``unigram`` learns them: the library's own trainer takes its seeds from whole lines,
    where a word that is always followed by a space is none.
    """

    library: ClassVar[str | None] = "sentencepiece"

    def _model(self, pieces: Sequence[Scored]) -> Unigram:
        return SentencePieceUnigram(kinds_of(pieces), every_byte=True)
