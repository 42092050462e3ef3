"""Cleaners that are wrong in one way: rewriting, sampling, duplicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import ClassVar

from corelm.conformance.bugs.data import Squeezer
from corelm.conformance.planted import plant, reference
from corelm.kinds.cleaner import Cleaner
from corelm.kinds.records import Sample, Text


@reference
class Stars(Cleaner):
    """Puts a star in place of each number."""

    writes: ClassVar[tuple[str, ...] | None] = ("*",)
    local: ClassVar[bool] = True
    number: ClassVar[str] = r"\d+"

    def star(self, text: str) -> str:
        """What a text becomes."""
        return re.sub(self.number, "*", text)

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """All of them, rewritten."""
        for document in documents:
            self.report.seen += 1
            self.report.kept += 1
            text = self.star(document.text)
            yield document if text == document.text else self.note_rewritten(document, text, {"number": 1})


@plant("paragraphs_are_by_themselves", "the word before a number goes with it, out of the paragraph before too")
class EatsNeighbours(Stars):
    """A greedy pattern."""

    number = r"(?:\w+\s+)?\d+"


@plant("paragraphs_are_by_themselves", "once a number has come, all that follows counts as one more")
class RunsOn(Stars):
    """A dot that matches line breaks."""

    number = r"(?s)\d.*"


@plant("nothing_is_invented", "a star with spaces around it")
class AddsSpaces(Stars):
    """Spaces that nobody declared."""

    def star(self, text: str) -> str:
        return re.sub(self.number, " * ", text)


@plant("nothing_is_invented", "lower case, and says that it only takes characters out")
class LowerCases(Squeezer):
    """Other characters."""

    def rewrite(self, text: str) -> str:
        return super().rewrite(text).lower()


@plant("idempotent", "a number becomes the number of its digits")
class CountsDigits(Stars):
    """Which is a number."""

    writes = None

    def star(self, text: str) -> str:
        return re.sub(r"\d{2,}|[2-9]", lambda found: str(len(found[0]) + 10), text)


@plant("every_deed_is_sampled", "counts without a sample")
class NoEvidence(Squeezer):
    """Nobody can look."""

    def note(self, reason: str, document: Text, text: str | None = None) -> None:
        self.report.count(reason, document.name)


@plant("every_deed_is_sampled", "every document that was dropped or rewritten is kept in memory, for the page")
class KeepsAllSamples(Squeezer):
    """No bound."""

    def note(self, reason: str, document: Text, text: str | None = None) -> None:
        self.report.count(reason, document.name)
        kept = self.report.samples.setdefault(reason, [])
        kept += [Sample(document.name, document.text, text)] * 6


@plant("every_deed_is_sampled", "what a rewritten document was is taken after it was rewritten, and called dropped")
class SampledTooLate(Squeezer):
    """Before is after."""

    def note(self, reason: str, document: Text, text: str | None = None) -> None:
        self.report.count(reason, document.name)
        self.report.sample(reason, document.name, text or document.text)


@plant("every_deed_is_sampled", "which documents are samples depends on how many instances there were")
class SamplesByChance(Squeezer):
    """Other ones each time."""

    made: ClassVar[int] = 0

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        type(self).made += 1
        yield from super().clean(documents)

    def note(self, reason: str, document: Text, text: str | None = None) -> None:
        super().note(reason, document, text)
        kept = self.report.samples[reason]
        kept[:] = [Sample(s.name, s.before, s.after, f"run {self.made}") for s in kept]


@plant("the_rest_changes_nothing", "of documents that are alike all are dropped, the first one too")
class DropsTheFirstToo(Squeezer):
    """Counts them beforehand."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        every = list(documents)
        count = Counter(d.text for d in every)
        for document in every:
            if count[document.text] > 1:
                self.report.seen += 1
                self.note_dropped(document, "duplicate")
            else:
                yield from super().clean([document])


@plant("it_streams", "documents are sorted out in batches of two thousand")
class LargeBatches(Squeezer):
    """More than anybody should hold."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        batch: list[Text] = []
        for document in documents:
            batch.append(document)
            if len(batch) == 2_000:
                yield from super().clean(batch)
                batch = []
        yield from super().clean(batch)
