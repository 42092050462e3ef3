"""The deduplication of the Colossal Clean Crawled Corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pydantic import Field

from corelm.kinds import Cleaner, ComponentConfig, Count, Text
from corelm_data import sentences
from corelm_data.digest_set import DigestSet

_WIDTH: Final = 8


class C4Deduplication(Cleaner):
    """Takes sentences out of documents that have come before, by the rule of C4.

    "We discarded all but one of any three-sentence span occurring more than once in the data set" (Raffel et al., 2020,
    arXiv:1910.10683, section 2.2): of ``span`` sentences in a row that have come before, in an earlier document or
    earlier in this one, none is kept here, and where others around them have come before with them, those neither. What
    comes first is what is kept. Sentences end as in ``c4-quality``, which belongs before this one, and are compared in
    lower case, white space aside. Paragraphs stay apart where sentences between them go. (C4's published program
    compares single lines instead, and keeps one by chance.)

    Rewritten documents are counted as ``repeated-sentence``, as often as sentences were taken out; those of which fewer
    than ``sentences_least`` are left are dropped and counted as ``sentence-count``. What was dropped or taken out is not
    remembered: only what is let through can come again.

    Memory: 64 bits of a digest for each span that was let through, in a table of 11 to 21 bytes per span (half as much
    again while it grows), whatever the length of documents; ``remember`` bounds their number. Spans that were never seen
    agree with one of n remembered ones with probability n / 2^64.
    """

    class Config(ComponentConfig):
        """What is compared, and how much is remembered."""

        span: int = Field(3, ge=1, description="Sentences of a span.")
        sentences_least: int = Field(
            3, ge=1, description="Fewest sentences left of a document that some were taken out of."
        )
        remember: Count = Field(
            50_000_000, ge=1, description="So many spans are compared with, at most twice as many and a document's."
        )

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield documents without what has come before."""
        now, before = DigestSet(_WIDTH), DigestSet(_WIDTH)
        for document in documents:
            self.report.seen += 1
            found, gaps = sentences.split(document.text)
            kept, spans = self._fresh([" ".join(sentence.lower().split()) for sentence in found], (now, before))
            gone = len(found) - len(kept)
            if gone and len(kept) < self.config.sentences_least:
                self.note_dropped(document, "sentence-count", f"{len(kept)}, at least {self.config.sentences_least}")
                continue
            if len(now) >= self.config.remember:
                now, before = DigestSet(_WIDTH), now
            for span in spans:
                now.add(span)
            self.report.kept += 1
            if gone:
                text = _joined(found, gaps, kept)
                document = self.note_rewritten(document, text, {"repeated-sentence": gone}, f"{gone} of {len(found)}")
            yield document

    def _fresh(self, spelt: Sequence[str], known: Sequence[DigestSet]) -> tuple[list[int], list[bytes]]:
        """Numbers of the sentences that are kept, and the spans that these make, none of them twice."""
        width, kept = self.config.span, list(range(len(spelt)))
        spans: list[bytes] = []
        places: dict[bytes, int] = {}

        def digest(place: int) -> bytes:
            words = "\n".join(spelt[number] for number in kept[place : place + width])
            return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=_WIDTH).digest()

        def repeats(span: bytes, start: int) -> bool:
            """Whether it has come before, in this document before ``start``."""
            here = span in places and places[span] + width <= start
            return here or any(span in some for some in known)

        while (place := len(spans)) + width <= len(kept):
            span = digest(place)
            # Of a span that overlaps its own repetition ("no, no, no, no") the first is left whole.
            start = max(place, places[span] + width) if span in places else place
            if not repeats(span, start):
                places[span] = place
                spans.append(span)
                continue
            stop = place + width
            while stop < len(kept) and repeats(digest(stop + 1 - width), start):
                stop += 1
            del kept[start:stop]
            # Sentences are neighbours now that weren't: spans that end at the gap are looked at again.
            for gone in spans[max(0, start + 1 - width) :]:
                del places[gone]
            del spans[max(0, start + 1 - width) :]
        return kept, spans


def _joined(found: Sequence[str], gaps: Sequence[str], kept: Sequence[int]) -> str:
    """The sentences that are kept; where some between two went, the gap with most line breaks stays."""
    pieces: list[str] = []
    end = 0
    for number in kept:
        between = gaps[end : number + 1]
        # What stood before the first sentence went with it.
        pieces += [max(between, key=lambda gap: gap.count("\n")) if end or not number else "", found[number]]
        end = number + 1
    return "".join([*pieces, gaps[-1] if end == len(found) else ""])
