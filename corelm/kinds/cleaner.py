"""Kind ``cleaner``: drops or rewrites documents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from corelm.kinds.component import Component
from corelm.kinds.records import Report, Text


class Cleaner(Component):
    """Drops or rewrites documents of a corpus.

    Built as ``Part(config)``; one instance cleans one stream.

    Contract:
        * Idempotent: a fresh instance, run over what this one let through, changes nothing.
        * Order is kept; nothing is invented.
        * Every record dropped or rewritten is counted in ``report`` under a reason.
        * It streams.
    """

    kind: ClassVar[str] = "cleaner"

    def __init__(self, config: Any) -> None:
        self.config = config
        self.report = Report()

    @abstractmethod
    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield what is kept."""
