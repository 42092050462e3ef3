"""WordPiece tokenizer, as BERT has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

from pydantic import Field

from corelm.kinds import ComponentConfig, Count
from corelm_tokenizers.assembled import Assembly
from corelm_tokenizers.formats import schema
from corelm_tokenizers.learnt_pieces import LearnsPieces, Scored
from corelm_tokenizers.model import Model
from corelm_tokenizers.wordpiece import PREFIX, WordPiece
from corelm_tokenizers.wordpiece_training import learn_word_pieces

UNKNOWN: Final = "[UNK]"


class WordPieceTokenizer(LearnsPieces):
    """WordPiece as BERT has it, learnt from text.

    Words are cut from the left, each time at the longest piece (Devlin et al., 2019, arXiv:1810.04805). Text is
    cleaned of control characters, its white space becomes single spaces, with ``lowercase`` it loses case and
    accents; it is cut at white space, punctuation and between Chinese characters. So what comes back are the words,
    with one space between them: this is for classifying, not for writing. A word with a character that training
    hasn't seen is the unknown. See ``learn_word_pieces`` for how pieces are learnt. Ids: the unknown, the pieces
    learnt, the special tokens. The same file is read by ``hf-wordpiece``.
    """

    family: ClassVar[str] = "wordpiece"
    model_type: ClassVar[str] = "WordPiece"
    outside: ClassVar[tuple[str, ...]] = (UNKNOWN,)
    longest_piece_first: ClassVar[bool] = True

    class Config(ComponentConfig):
        """Size of the vocabulary, and what is done to text and words."""

        vocab_size: Count = Field(
            32_000, ge=1, description="Number of ids: unknown, characters, pieces, special tokens."
        )
        lowercase: bool = Field(True, description="Whether case and accents are dropped.")
        longest_word: int = Field(100, ge=1, description="A word of more characters is unknown.")

    @cached_property
    def _steps(self) -> Assembly:
        """What is done to a text before words are looked up: for training, a vocabulary of nothing but the unknown."""
        nothing = [(UNKNOWN, 0.0)]
        return Assembly(self._described(nothing, ()), self._model(nothing))

    def _words(self, document: str) -> Iterable[str]:
        return (word for word in self._steps.words(document) if len(word) <= self.config.longest_word)

    def _learn(self, words: Counter[str], room: int) -> Sequence[Scored]:
        return [(piece, 0.0) for piece in learn_word_pieces(words, room, PREFIX)]

    def _described(self, pieces: Sequence[Scored], specials: Sequence[str]) -> dict[str, Any]:
        return schema.description(
            {
                "type": "WordPiece",
                "unk_token": UNKNOWN,
                "continuing_subword_prefix": PREFIX,
                "max_input_chars_per_word": self.config.longest_word,
                "vocab": {piece: number for number, (piece, _) in enumerate(pieces)},
            },
            normalizer={
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": self.config.lowercase,
            },
            pre_tokenizer={"type": "BertPreTokenizer"},
            decoder={"type": "WordPiece", "prefix": PREFIX, "cleanup": False},
            added=[schema.added_token(len(pieces) + number, name) for number, name in enumerate(specials)],
        )

    def _model(self, pieces: Sequence[Scored]) -> Model:
        return WordPiece([piece for piece, _ in pieces], unknown=0, longest_word=self.config.longest_word)

    @classmethod
    def _read(cls, data: Any) -> tuple[list[Scored], dict[str, Any]]:
        options = {
            "lowercase": data["normalizer"]["lowercase"],
            "longest_word": data["model"]["max_input_chars_per_word"],
        }
        return [(piece, 0.0) for piece in data["model"]["vocab"]], options
