"""Byte-pair encoding in SentencePiece's manner: neighbours join whenever they spell a piece, the best piece first."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Collection, Sequence

import regex

from corelm_tokenizers.fallback import byte_pieces, bytes_of, spans_of_pieces
from corelm_tokenizers.model import Spans


class ScoredPairs:
    """Joins the neighbours that spell the piece with the highest score, the leftmost first, until none spell a piece.

    So it is unlike byte-pair encoding by merges, where it matters which two parts make a piece (Kudo and Richardson,
    2018, arXiv:1808.06226, section 3.1). Words begin as characters and as the pieces that the user defined, the
    longest that fits; those are never joined. A piece that is unused may be joined on the way to a longer one, but what
    is left of it in the end falls apart again, in the way in which it was joined last.

    A character that no piece spells becomes its UTF-8's bytes, where all 256 have a piece ``<0x00>`` … ``<0xFF>``,
    else the unknown; neighbouring unknowns are one.

    Args:
        pieces: spelling of each id.
        scores: of each, compared in float32.
        unknown: its id, if there is one.
        every_byte: whether characters without a piece are written as bytes.
        hidden: ids that no text spells: control tokens, bytes, the unknown.
        user_defined: ids that are taken wherever they are spelt.
        unused: ids that may be joined, but never come out.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        scores: Sequence[float],
        *,
        unknown: int | None = None,
        every_byte: bool = False,
        hidden: Collection[int] = (),
        user_defined: Collection[int] = (),
        unused: Collection[int] = (),
    ) -> None:
        self.pieces = tuple(pieces)
        self.unknown = unknown
        self._bytes = byte_pieces(self.pieces) if every_byte else None
        costs = array("f", scores)
        self._costs = {
            piece: (-costs[token], token) for token, piece in enumerate(self.pieces) if token not in hidden and piece
        }
        self._unused = frozenset(self.pieces[token] for token in unused)
        self._user_defined = frozenset(self.pieces[token] for token in user_defined)
        longest_first = sorted(self._user_defined, key=len, reverse=True)
        spelt = "|".join(map(regex.escape, longest_first))
        self._cut = regex.compile(f"{spelt}|." if spelt else ".", regex.DOTALL)

    @property
    def every_byte(self) -> bool:
        """Whether any bytes can be written."""
        return self._bytes is not None

    def ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word; empty where a character can't be written."""
        ids: list[int] = []
        for part in self.parts(word):
            cost = self._costs.get(part)
            if cost is not None and part not in self._unused:
                ids.append(cost[1])
            elif self._bytes is not None:
                ids += bytes_of(part, self._bytes)
            elif self.unknown is None:
                return ()
            elif not ids or ids[-1] != self.unknown:
                ids.append(self.unknown)
        return tuple(ids)

    def spans(self, word: str, ids: Sequence[int]) -> Spans:
        """Characters of the word that each of its ids covers."""
        if self.unknown not in ids:
            return spans_of_pieces(word, ids, self.pieces, self._bytes)
        # How far an unknown reaches is seen only by cutting again.
        found: list[tuple[int, int]] = []
        start, fused = 0, False
        for part in self.parts(word):
            end, known = start + len(part), part in self._costs and part not in self._unused
            if fused and not known:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
            start, fused = end, not known
        return tuple(found)

    def merge_of(self, piece: str) -> tuple[str, str] | None:
        """The two parts that a piece is joined from, whatever stands around; None where it is never joined.

        Inside of a piece neighbours are joined in the same order in every text, since only their scores and their
        order decide; so the last two parts are always the same.
        """
        joined: list[tuple[str, str]] = []
        return joined[-1] if len(self.parts(piece, joined)) == 1 and joined else None

    def parts(self, word: str, joined_from: list[tuple[str, str]] | None = None) -> list[str]:
        """What a word is cut into: pieces, and single characters that are none.

        Args:
            word: without what is done before.
            joined_from: takes the pairs that are joined, in order.
        """
        parts = [*self._cut.findall(word), ""]
        after, before = list(range(1, len(parts) + 1)), list(range(-1, len(parts) - 1))
        apart: dict[str, tuple[str, str]] = {}
        heap: list[tuple[float, int, int]] = []
        chosen = self._user_defined

        def offer(left: int, right: int) -> None:
            if left < 0 or not parts[right] or parts[left] in chosen or parts[right] in chosen:
                return
            joined = parts[left] + parts[right]
            cost = self._costs.get(joined)
            if cost is not None:
                heapq.heappush(heap, (cost[0], left, len(joined)))
                if joined in self._unused:
                    apart[joined] = parts[left], parts[right]

        for place in range(len(parts) - 2):
            offer(place, place + 1)
        while heap:
            _, left, size = heapq.heappop(heap)
            right = after[left]
            if not parts[left] or not parts[right] or len(parts[left]) + len(parts[right]) != size:
                continue
            if joined_from is not None:
                joined_from.append((parts[left], parts[right]))
            parts[left] += parts[right]
            parts[right] = ""
            after[left], before[after[right]] = after[right], left
            offer(before[left], left)
            offer(left, after[left])
        return [piece for part in parts if part for piece in self._apart(part, apart)]

    def _apart(self, part: str, apart: dict[str, tuple[str, str]]) -> list[str]:
        """An unused piece as the used ones that it was joined from."""
        if part not in self._unused or part not in apart:
            return [part]
        left, right = apart[part]
        return self._apart(left, apart) + self._apart(right, apart)
