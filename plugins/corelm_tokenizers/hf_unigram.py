"""Unigram language model by the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from corelm_tokenizers.learnt_pieces import Scored
from corelm_tokenizers.library_models import TokenizersUnigram
from corelm_tokenizers.unigram import Unigram
from corelm_tokenizers.unigram_tokenizer import UnigramTokenizer


class LibraryUnigramTokenizer(UnigramTokenizer):
    """Unigram language model by the ``tokenizers`` library.

    The library finds the most probable way; the same ids as ``unigram`` on the same pieces; each reads what the other
    saved. Pieces are learnt as ``unigram`` learns them, since the library's own trainer isn't the same twice.
    """

    library: ClassVar[str | None] = "tokenizers"

    def _model(self, pieces: Sequence[Scored]) -> Unigram:
        return TokenizersUnigram([p for p, _ in pieces], [score for _, score in pieces], unknown=0, every_byte=True)
