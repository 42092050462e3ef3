"""The text of web pages."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field

from corelm.kinds import ComponentConfig, library
from corelm_data.one_by_one import OneByOne, Verdict, dropped

_PAGE: Final = re.compile(
    r"\s*\ufeff?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)


class HtmlText(OneByOne):
    """Rewrites documents that are web pages as their main text.

    Navigation, headers, footers, advertisements and scripts are left out, by the library trafilatura (Barbaresi, 2021,
    doi:10.18653/v1/2021.acl-demo.15), which FineWeb and RefinedWeb were extracted with. A document is a page when it
    begins as one: with a doctype, or with the element html, head or body. All others stay as they are. Pages are
    counted as ``extracted``; those without any main text are dropped as ``no-text``, and those whose text would again
    begin as a page (they show a page's source) as ``markup-remains``.
    """

    writes = None

    class Config(ComponentConfig):
        """What belongs to the text."""

        favour: Literal["balanced", "precision", "recall"] = Field(
            "balanced", description="In doubt: leave out (precision), or take in (recall)."
        )
        tables: bool = Field(True, description="Take the text of tables in.")
        comments: bool = Field(False, description="Take readers' comments in.")
        markdown: bool = Field(False, description="Keep headings, lists and emphasis as Markdown.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._extract: Any = None

    def judge(self, text: str) -> Verdict | None:
        """Extract, where it is a page."""
        if not _PAGE.match(text):
            return None
        if self._extract is None:
            self._extract = library("trafilatura", extra="data", by="cleaner html-text").extract
        found = self._extract(
            text,
            favor_precision=self.config.favour == "precision",
            favor_recall=self.config.favour == "recall",
            include_tables=self.config.tables,
            include_comments=self.config.comments,
            output_format="markdown" if self.config.markdown else "txt",
            deduplicate=False,  # it would remember pages that came before
        )
        if not found:
            return dropped("no-text", f"{len(text):,} characters of markup")
        if _PAGE.match(found):
            return dropped("markup-remains")
        return Verdict(found, {"extracted": 1}, f"{len(text):,} characters, {len(found):,} of text")
