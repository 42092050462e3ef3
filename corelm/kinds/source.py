"""Kind ``source``: yields typed records, resumable by position."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from corelm.kinds.component import Component
from corelm.kinds.records import Record, RecordName, texts_of

SHOWN = 3
"""Places that are remembered for each reason."""


@dataclass
class Consumed:
    """What was really read from a source since it was built.

    Attributes:
        records, characters: that came.
        left_out: how many were not taken, by reason: broken ones, and those that a rule of the config leaves out.
        places: the first few of them, by reason.
        parts: the same of each part of a mixture, by its name.
    """

    records: int = 0
    characters: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, Consumed] = field(default_factory=dict)

    def count(self, record: Record) -> None:
        """Count a record that came."""
        self.records += 1
        self.characters += sum(map(len, texts_of(record)))

    def leave_out(self, reason: str, place: str) -> None:
        """Count what is not taken: a record, a file, or the rest of one."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        shown = self.places.setdefault(reason, [])
        if len(shown) < SHOWN:
            shown.append(place)

    def sentences(self, name: str = "") -> list[str]:
        """The same in words: what each part gave, and what was left out and why."""
        head = f"{name}: " if name else ""
        told = []
        for part, consumed in self.parts.items():
            share = consumed.records / self.records if self.records else 0
            told.append(
                f"{head}{part}: {consumed.records:,} records ({share:.1%}), {consumed.characters:,} characters"
            )
            told += consumed.sentences(f"{head}{part}")
        for reason, count in sorted(self.left_out.items()):
            places = self.places[reason]
            more = f" and {count - len(places):,} more" if count > len(places) else ""
            told.append(f"{head}left out as {reason}: {count:,} ({', '.join(places)}{more})")
        return told


class Source(Component):
    """Where records come from.

    Built as ``Part(config)``.

    Contract:
        * ``records(start)`` yields the same records in the same order whenever the underlying data are the same,
          skipping the first ``start``; nothing is lost or doubled.
        * It streams: memory does not grow with the size of the data.
        * Every record's ``name`` says where it is from, so that a message can point at it, and stays the same when
          the data are moved: it starts from the file's folder or the one that the config names.
        * Broken input raises ``UserError`` naming the file and the place in it, a single record that is too long to be
          held included. Nothing is skipped silently: where the config says so (``broken: skip``) broken records and
          what a rule leaves out are counted in ``report``, with their places.
        * ``fingerprint`` changes when the data change: a digest of names, sizes and contents, or a version.
        * A source that mixes others says the share of each in ``shares`` and counts each in ``report.parts``.

    Attributes:
        report: what was read since the source was built, counted by ``read``.
    """

    kind: ClassVar[str] = "source"

    def __init__(self, config: Any) -> None:
        self.config = config
        self.report = Consumed()

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """Which type of record the source yields under ``config``: what its option ``yields`` says, else text."""
        name: RecordName = getattr(config, "yields", "text")
        return name

    @abstractmethod
    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield the records from position ``start`` on."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of the data."""

    def read(self, start: int = 0) -> Iterator[Record]:
        """``records(start)``, counted in ``report``."""
        for record in self.records(start):
            self.report.count(record)
            yield record

    def notes(self) -> list[str]:
        """What the user should know about this source on this machine (folders left out and so on)."""
        return []

    def shares(self) -> Mapping[str, float]:
        """Share of records that each part of a mixture has, as long as all parts last; none for other sources."""
        return {}

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any] | None:
        """Write texts as this source's kind of data, for the conformance kit; the options that read them as text.

        Two files or more where the format has files, the last one without a line break at its end where that is
        allowed. None: the kit writes JSON lines for an option ``path`` or ``files`` and a folder of plain text for
        ``paths``, or finds nothing to write.
        """
        return None
