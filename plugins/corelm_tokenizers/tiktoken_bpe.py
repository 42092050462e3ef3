"""Byte-pair encoding by the ``tiktoken`` library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

from corelm.errors import UserError
from corelm.kinds import library
from corelm_tokenizers.byte_pairs import LearnsMerges
from corelm_tokenizers.counting import count_words
from corelm_tokenizers.learning import learn_merges
from corelm_tokenizers.merging import join
from corelm_tokenizers.patterns import spelt_out, splitter
from corelm_tokenizers.vocabulary import Merge, check_scalars, pieces_of


class TiktokenBytePairTokenizer(LearnsMerges):
    """Byte-level byte-pair encoding by the ``tiktoken`` library.

    The same ids as ``bpe`` on the same merges; each reads what the other saved. The library only encodes, so merges are
    learnt as ``bpe`` learns them. It knows pieces and no merges: neighbours are joined whenever they spell a piece. For
    merges that were learnt from text that is the same; others are refused.
    """

    library: ClassVar[str | None] = "tiktoken"

    def _learn(self, documents: Iterable[str], room: int) -> list[Merge]:
        return learn_merges(count_words(documents, self.config.pattern), room)

    def _set(self, merges: Sequence[Merge], specials: Sequence[str]) -> None:
        tiktoken = library("tiktoken", extra="tokenizers", by="the tokenizer tiktoken-bpe")
        _check(merges)
        super()._set(merges, specials)
        pattern = self.config.pattern
        self._encoder: Any = tiktoken.Encoding(
            "corelm",
            pat_str=r"[\s\S]+" if pattern == "none" else spelt_out(pattern),
            mergeable_ranks={piece: number for number, piece in enumerate(pieces_of(merges)[0])},
            special_tokens={},
        )

    @classmethod
    def from_tokenizers_json(cls, text: str) -> Self | None:
        """The tokenizer that ``as_tokenizers_json`` wrote so; None where the file says anything else."""
        try:
            return super().from_tokenizers_json(text)
        except UserError:
            return None

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Encode each text as ``encode`` does, on all processors."""
        if allow_special:
            return [self.encode(text, allow_special=True) for text in texts]
        self._trained()
        for text in texts:
            check_scalars(text)
        ids: list[list[int]] = self._encoder.encode_ordinary_batch(list(texts))
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:  # bytes that are no UTF-8 stand in it as surrogate escapes: cut here, joined there
            cut = splitter(self.config.pattern)
            words = [text] if cut is None else cut.findall(text)
            join_word = self._encoder._encode_single_piece
            return [token for word in words for token in join_word(word.encode("utf-8", "surrogateescape"))]
        ids: list[int] = self._encoder.encode_ordinary(text)
        return ids


def _check(merges: Sequence[Merge]) -> None:
    """Refuse merges that joining whatever spells a piece doesn't follow.

    It does where each merge yields a piece of its own, and each piece, encoded by the merges, is itself: if two
    neighbours spelt a piece before its own merge brought them together, that piece would be cut so by itself too.
    """
    pieces, results = pieces_of(merges)
    rules = {merge: (rank, results[rank]) for rank, merge in enumerate(merges)}
    torn = (pieces[token] for token in set(results) if join(list(pieces[token]), rules) != (token,))
    wrong = next(torn, None)
    if len(set(results)) < len(merges) or wrong is not None:
        what = "two merges yield the same piece" if wrong is None else f"the piece {wrong!r} isn't encoded as itself"
        raise UserError(
            f"tiktoken can't follow these merges: {what}",
            remedy="Use bpe or hf-bpe, which follow merges.",
            code="tokenizer-not-representable",
        )
