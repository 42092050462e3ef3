"""Kind ``cleaner``: drops or rewrites documents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from corelm.kinds.component import Component
from corelm.kinds.records import Report, Text


class Cleaner(Component):
    """Drops or rewrites documents of a corpus.

    Built as ``Part(config)``; one instance cleans one stream.

    Contract:
        * Idempotent: a fresh instance, run over what this one let through, changes nothing.
        * Order is kept; nothing is invented: a text that is rewritten loses characters, and gets no others than the
          strings that ``writes`` names. A part that spells text in other characters says so: ``writes`` is None.
        * Every record dropped or rewritten is counted in ``report`` under a reason, and may be drawn as a sample with
          its text before and after; ``note_dropped`` and ``note_rewritten`` do both.
        * It streams: a document is decided on before many more are asked for, and depends on none that come later.
        * Names decide nothing, and chance decides nothing.
        * ``local``: each paragraph (text between blank lines) is rewritten by itself, whatever stands around it.
    """

    kind: ClassVar[str] = "cleaner"
    writes: ClassVar[tuple[str, ...] | None] = ()
    """Strings that it may put in place of others; None: it spells texts in other characters."""
    local: ClassVar[bool] = False
    """Whether it only rewrites, and each paragraph by itself."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.report = Report()

    @abstractmethod
    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield what is kept."""

    def note_dropped(self, document: Text, reason: str, detail: str = "") -> None:
        """Count a document that isn't kept; ``detail`` has the figures, e.g. ``12 words, at least 50``."""
        self.report.count(reason, document.name)
        self.report.sample(reason, document.name, document.text, None, detail)

    def note_rewritten(self, document: Text, text: str, reasons: Mapping[str, int], detail: str = "") -> Text:
        """Count a document that is kept as another text, under each reason so many times; the new document."""
        for reason, times in reasons.items():
            self.report.count(reason, document.name, times)
            self.report.sample(reason, document.name, document.text, text, detail)
        return replace(document, text=text)
