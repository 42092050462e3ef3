"""WordPiece by the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from corelm_tokenizers.learnt_pieces import Scored
from corelm_tokenizers.library_models import TokenizersWordPiece
from corelm_tokenizers.model import Model
from corelm_tokenizers.wordpiece_tokenizer import WordPieceTokenizer


class LibraryWordPieceTokenizer(WordPieceTokenizer):
    """WordPiece by the ``tokenizers`` library.

    The library cuts the words; the same ids as ``wordpiece`` on the same pieces; each reads what the other saved.
    Pieces are learnt as ``wordpiece`` learns them, since the library's own trainer isn't the same twice.
    """

    library: ClassVar[str | None] = "tokenizers"

    def _model(self, pieces: Sequence[Scored]) -> Model:
        return TokenizersWordPiece([p for p, _ in pieces], unknown=0, longest_word=self.config.longest_word)
