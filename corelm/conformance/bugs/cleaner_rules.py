"""Cleaners that are not quite what their name says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from pydantic import Field

from corelm.conformance.bugs.data import Squeezer
from corelm.conformance.planted import plant
from corelm.kinds.cleaner import Cleaner
from corelm.kinds.component import ComponentConfig
from corelm.kinds.records import Text


@plant("does_what_its_name_says", "texts that differ in capitals only count as the same")
class DropsOtherCapitals(Squeezer):
    """Exact, but for case."""

    rule: ClassVar[str] = "exact-dedup"

    def unwanted(self, text: str, seen: set[str]) -> str:
        return "duplicate" if text.lower() in {known.lower() for known in seen} else ""


@plant("does_what_its_name_says", "nothing is ever a duplicate: a set that is made anew for every document")
class DropsNothing(Squeezer):
    """Lets everything through."""

    rule: ClassVar[str] = "exact-dedup"

    def unwanted(self, text: str, seen: set[str]) -> str:
        return super().unwanted(text, set())


@plant("does_what_its_name_says", "whole documents are compared, so that a repeated paragraph among others stays")
class DropsWholeRepetitionsOnly(Squeezer):
    """Says it knows spans."""

    rule: ClassVar[str] = "c4-dedup"


class Counter(Cleaner):
    """One rule of Gopher's."""

    rule: ClassVar[str] = "gopher-quality"

    class Config(ComponentConfig):
        """The threshold."""

        words_least: int = Field(0, ge=0, description="Fewest words.")

    def measured(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def passes(self, count: int) -> bool:
        """Whether they are enough."""
        return count >= int(self.config.words_least)

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Those that have enough."""
        for document in documents:
            self.report.seen += 1
            count = self.measured(document.text)
            if self.passes(count):
                self.report.kept += 1
                yield document
            else:
                self.note_dropped(document, "word-count", f"{count}, at least {self.config.words_least}")


@plant("thresholds_are_exact", "more than the threshold instead of at least as many")
class MoreThanEnough(Counter):
    """Off by one."""

    def passes(self, count: int) -> bool:
        return count > int(self.config.words_least) or not self.config.words_least


@plant("thresholds_are_exact", "spaces are counted instead of words")
class CountsSpaces(Counter):
    """Double ones too."""

    def measured(self, text: str) -> int:
        return text.count(" ") + 1
