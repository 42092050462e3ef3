"""What cleaners share that look at each document by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from corelm.kinds import Cleaner, Text


@dataclass(frozen=True)
class Verdict:
    """What is to happen to a text.

    Attributes:
        text: what it becomes; None: it is dropped.
        reasons: why, and how often.
        detail: the figures, for people.
    """

    text: str | None
    reasons: Mapping[str, int]
    detail: str = ""


def dropped(reason: str, detail: str = "") -> Verdict:
    """The verdict that drops a text."""
    return Verdict(None, {reason: 1}, detail)


class OneByOne(Cleaner):
    """Base of cleaners that decide on each document from its text alone."""

    @abstractmethod
    def judge(self, text: str) -> Verdict | None:
        """What is to happen to this text; None: it stays as it is."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield what is kept, rewritten where the verdict says so."""
        for document in documents:
            self.report.seen += 1
            verdict = self.judge(document.text)
            if verdict is None:
                self.report.kept += 1
                yield document
            elif verdict.text is None:
                for reason in verdict.reasons:
                    self.note_dropped(document, reason, verdict.detail)
            else:
                self.report.kept += 1
                yield self.note_rewritten(document, verdict.text, verdict.reasons, verdict.detail)


def settled(rewrite: Callable[[str], str], text: str, most: int) -> str:
    """Rewrite until nothing changes; the text as it was given where that takes more than ``most`` times.

    Either way the result stays as it is when it is rewritten again.
    """
    now = text
    for _ in range(most):
        now, before = rewrite(now), now
        if now == before:
            return now
    return text
