"""The records that flow from sources to packers."""

from __future__ import annotations

import bisect
import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

RoleName = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Text:
    """A document. ``name`` says where it is from, e.g. ``jsonl: a.jsonl:17``."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: RoleName
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order; the assistant's are what a model learns to write."""

    messages: tuple[Message, ...]
    name: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns to be answered: all but the assistant's at the end."""
        end = len(self.messages)
        while end and self.messages[end - 1].role == "assistant":
            end -= 1
        return self.messages[:end]


@dataclass(frozen=True)
class Preference:
    """Two answers to the same conversation, the better one first."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    name: str = ""


@dataclass(frozen=True)
class Labelled:
    """A text and its class."""

    text: str
    label: int
    name: str = ""


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question: which ending goes on from the context.

    ``contexts`` has one entry, or one per ending (then the endings are alike, as in Winogrande).
    """

    contexts: tuple[str, ...]
    endings: tuple[str, ...]
    gold: int
    name: str = ""


Record = Text | Conversation | Preference | Labelled | Choice
RecordName = Literal["text", "conversation", "preference", "labelled", "choice"]


def texts_of(record: Record) -> list[str]:
    """All texts of a record, in the order of its fields."""
    if isinstance(record, Conversation):
        return [message.content for message in record.messages]
    if isinstance(record, Preference):
        return [*(message.content for message in record.prompt), record.chosen, record.rejected]
    return [*record.contexts, *record.endings] if isinstance(record, Choice) else [record.text]


@dataclass(frozen=True)
class Sample:
    """One document that a cleaner dropped or rewrote, in excerpts for people to look at.

    Attributes:
        name: of the document.
        before: an excerpt; of a rewritten document around the first change.
        after: the same place afterwards; None: the document was dropped.
        detail: the figures behind the decision, e.g. ``12 words, at least 50``.
    """

    name: str
    before: str
    after: str | None = None
    detail: str = ""


EXAMPLES, SAMPLES, EXCERPT, LEAD = 3, 5, 1000, 120
"""Names and excerpts kept for a reason; characters of an excerpt, and of what it shows before the first change."""


@dataclass
class Report:
    """What a cleaner did: counts by reason, and a few examples of each.

    Attributes:
        seen, kept: documents.
        reasons: how often each reason for dropping or rewriting was met.
        examples: names of the first few documents, by reason.
        samples: excerpts of a few documents, by reason; those whose text has the smallest digest, which is a fair
            draw, and the same one every time.
    """

    seen: int = 0
    kept: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    _drawn: dict[str, list[bytes]] = field(default_factory=dict, repr=False)

    def count(self, reason: str, name: str, times: int = 1) -> None:
        """Note one record dropped or changed for ``reason``, which was met in it so many times."""
        self.reasons[reason] = self.reasons.get(reason, 0) + times
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(name)

    def sample(self, reason: str, name: str, before: str, after: str | None = None, detail: str = "") -> None:
        """Keep an excerpt of a record dropped (``after`` None) or changed for ``reason``, if it is drawn."""
        lot = hashlib.blake2b(before.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        lots, kept = self._drawn.setdefault(reason, []), self.samples.setdefault(reason, [])
        if len(lots) == SAMPLES and lot >= lots[-1]:
            return
        place = bisect.bisect_right(lots, lot)
        lots.insert(place, lot)
        kept.insert(place, Sample(name, *excerpts(before, after), detail))
        del lots[SAMPLES:], kept[SAMPLES:]

    def plain(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        samples = {reason: [asdict(sample) for sample in kept] for reason, kept in self.samples.items()}
        return {
            "seen": self.seen,
            "kept": self.kept,
            "reasons": self.reasons,
            "examples": self.examples,
            "samples": samples,
        }


def excerpts(before: str, after: str | None) -> tuple[str, str | None]:
    """At most ``EXCERPT`` characters of both texts, from ``LEAD`` before where they part; None stays None."""
    if after is None:
        return before[:EXCERPT], None
    low, high = 0, min(len(before), len(after))
    while low < high:  # the length of what they share, by halving
        middle = (low + high + 1) // 2
        low, high = (middle, high) if before[low:middle] == after[low:middle] else (low, middle - 1)
    start = max(0, low - LEAD)
    return before[start : start + EXCERPT], after[start : start + EXCERPT]
