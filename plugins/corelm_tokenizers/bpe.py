"""Byte-level byte-pair encoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from corelm_tokenizers.byte_pairs import LearnsMerges
from corelm_tokenizers.counting import count_words, words_of
from corelm_tokenizers.learning import learn_merges
from corelm_tokenizers.merging import join
from corelm_tokenizers.model import Remembered
from corelm_tokenizers.vocabulary import Merge, pieces_of


class BytePairTokenizer(LearnsMerges):
    """Byte-level byte-pair encoding, learnt from raw UTF-8 bytes.

    Text is cut into words by ``pattern``; inside a word, starting from its bytes, the pair of neighbours whose merge
    was learnt first is joined, the leftmost first, until no pair has a merge (Sennrich et al., 2016,
    arXiv:1508.07909; on bytes: Radford et al., 2019). Every text can be written, and comes back byte for byte.

    Training counts the words and forgets the text, so a corpus of any size takes the memory of its *different* words
    (with ``pattern: none``, where a document is one word, that of its different documents). See ``learn_merges`` for
    how ties are broken: the same corpus gives the same merges in any order, here and in ``hf-bpe``.
    """

    def _learn(self, documents: Iterable[str], room: int) -> list[Merge]:
        return learn_merges(count_words(documents, self.config.pattern), room)

    def _set(self, merges: Sequence[Merge], specials: Sequence[str]) -> None:
        super()._set(merges, specials)
        results = pieces_of(merges)[1]
        rules = {merge: (rank, results[rank]) for rank, merge in enumerate(merges)}
        self._remembered = Remembered(lambda word: join(list(word.encode("utf-8", "surrogateescape")), rules))

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = []
        for words in words_of(text, self.config.pattern):
            ids.extend(chain.from_iterable(map(self._remembered.__getitem__, words)))
        return ids
