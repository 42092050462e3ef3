"""Byte-level byte-pair encoding."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

from corelm_tokenizers.byte_pairs import LearnsMerges
from corelm_tokenizers.learning import learn_merges
from corelm_tokenizers.patterns import splitter
from corelm_tokenizers.vocabulary import Merge, pieces_of

_REMEMBERED: Final = 2**16
"""Words whose ids are remembered; when there are more, all are forgotten."""
_LONGEST_REMEMBERED: Final = 64


class BytePairTokenizer(LearnsMerges):
    """Byte-level byte-pair encoding, learnt from raw UTF-8 bytes.

    Text is cut into words by ``pattern``; inside a word, starting from its bytes, the pair of neighbours whose merge
    was learnt first is joined, the leftmost first, until no pair has a merge (Sennrich et al., 2016,
    arXiv:1508.07909; on bytes: Radford et al., 2019). Every text can be written, and comes back byte for byte.

    Training counts the words and forgets the text, so a corpus of any size takes the memory of its *different* words
    (with ``pattern: none``, where a document is one word, that of its different documents). See ``learn_merges`` for
    how ties are broken: the same corpus gives the same merges in any order, here and in ``hf-bpe``.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._split = splitter(config.pattern)

    def _learn(self, documents: Iterable[str], room: int) -> list[Merge]:
        words: Counter[str] = Counter()
        for document in documents:
            words.update(self._words(document))
        return learn_merges(words, room)

    def _set(self, merges: Sequence[Merge], specials: Sequence[str]) -> None:
        super()._set(merges, specials)
        results = pieces_of(merges)[1]
        rules = {merge: (rank, results[rank]) for rank, merge in enumerate(merges)}
        self._remembered = _Remembered(lambda word: _join(word.encode(), rules))

    def _words(self, text: str) -> list[str]:
        return [text] if self._split is None else self._split.findall(text)

    def _encode_plain(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._remembered.__getitem__, self._words(text))))


class _Remembered(dict[str, tuple[int, ...]]):
    """Ids of words, computed when first asked for; bounded in number and in the words' length."""

    def __init__(self, compute: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._compute(word)
        if len(word) <= _LONGEST_REMEMBERED:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[word] = ids
        return ids


def _join(word: bytes, rules: dict[Merge, tuple[int, int]]) -> tuple[int, ...]:
    """Apply merges, the lowest rank first, the leftmost of it first; a heap makes it O(n log n) for long words."""
    symbols = [*word, -1]
    after = list(range(1, len(symbols) + 1))
    before = list(range(-1, len(symbols) - 1))
    heap = []
    for place in range(len(word) - 1):
        rule = rules.get((symbols[place], symbols[place + 1]))
        if rule:
            heap.append((rule[0], place, symbols[place], symbols[place + 1], rule[1]))
    heapq.heapify(heap)
    while heap:
        _, place, left, right, new = heapq.heappop(heap)
        second = after[place]
        if symbols[place] != left or symbols[second] != right:
            continue
        previous, following = before[place], after[second]
        symbols[place], symbols[second] = new, -1
        after[place], before[following] = following, place
        for start, pair in ((previous, (symbols[previous], new)), (place, (new, symbols[following]))):
            rule = rules.get(pair)
            if rule:
                heapq.heappush(heap, (rule[0], start, *pair, rule[1]))
    return tuple(symbol for symbol in symbols if symbol >= 0)
