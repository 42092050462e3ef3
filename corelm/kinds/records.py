"""The records that flow from sources to packers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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


@dataclass
class Report:
    """What a cleaner did: counts by reason, and a few examples of each."""

    seen: int = 0
    kept: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def count(self, reason: str, name: str) -> None:
        """Note one record dropped or changed for ``reason``."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < 3:
            shown.append(name)
