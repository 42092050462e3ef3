"""Kind ``source``: yields typed records, resumable by position."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from corelm.kinds.component import Component
from corelm.kinds.records import Record, RecordName


class Source(Component):
    """Where records come from.

    Built as ``Part(config)``.

    Contract:
        * ``records(start)`` yields the same records in the same order whenever the underlying data are the same,
          skipping the first ``start``; nothing is lost or doubled.
        * It streams: memory does not grow with the size of the data.
        * Every record's ``name`` says where it is from, so that a message can point at it, and stays the same when
          the data are moved: it starts from the file's folder or the one that the config names.
        * Broken input raises ``UserError`` naming the file and the line; nothing is skipped silently.
        * ``fingerprint`` changes when the data change: a digest of names, sizes and contents, or a version.
    """

    kind: ClassVar[str] = "source"

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def yields(cls, config: Any) -> RecordName:
        """Which type of record the source yields under ``config``."""

    @abstractmethod
    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield the records from position ``start`` on."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of the data."""

    def notes(self) -> list[str]:
        """What the user should know about this source on this machine (folders left out and so on)."""
        return []
