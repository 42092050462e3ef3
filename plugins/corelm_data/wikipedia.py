"""Pages of Wikipedia's dumps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal
from xml.sax.saxutils import escape

from pydantic import Field

from corelm.kinds import Text
from corelm_data import wiki_markup
from corelm_data.compressed import opened
from corelm_data.reading import Broken, FilesConfig, FileSource, Row, SourceFile
from corelm_data.xml_dumps import elements

_FILES_AND_CATEGORIES: Final = ("6", "14")
"""Numbers of the namespaces into which links are no text."""


class WikipediaDump(FileSource):
    """Pages of the XML dumps of Wikipedia and other wikis (pages-articles.xml.bz2).

    Each page is a document: its title, a blank line, and the running text of its newest revision, without markup
    (``wiki_markup``) unless it is kept. Records are named by file, number and title. Pages of other namespaces,
    redirects, pages without text and those that are no wikitext are left out and counted as ``namespace``,
    ``redirect``, ``empty`` and ``model``. Dumps stream page by page, compressed or not; of a history only one revision
    is held.
    """

    class Config(FilesConfig):
        """Which dumps, and what of them."""

        namespaces: list[int] = Field(
            [0], min_length=1, description="Numbers of the namespaces that are taken; 0: articles."
        )
        redirects: bool = Field(False, description="Whether redirects are documents too.")
        markup: Literal["strip", "keep"] = Field("strip", description="What becomes of wikitext's markup.")
        title: bool = Field(True, description="Whether a document begins with its title.")

    called: ClassVar[str] = "wikipedia-dump"
    endings: ClassVar[frozenset[str]] = frozenset({".xml"})

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """Pages of a dump.

        Raises:
            Broken: it is no XML from some line on, or no dump.
        """
        unread = frozenset({"file", "image", "media", "category"})
        known = False
        with opened(file.path) as stream:
            for name, element in elements(stream, "siteinfo", "page", newest="revision"):
                known = True
                if name == "siteinfo":
                    unread |= _local_names(element)
                elif name == "page":
                    page = _Page(element)
                    reason = self._left_out(page)
                    if reason:
                        self.report.leave_out(reason, f"{file.name}{page.place}")
                    else:
                        yield Row(page.place, partial(self._document, page, unread))
        if not known:
            raise Broken("it holds no pages", remedy="Is it a dump of pages (pages-articles)?", code="other-format")

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two dumps."""
        half = len(texts) // 2
        for number, part in enumerate((texts[:half], texts[half:])):
            pages = "".join(
                f"<page><title>Page {number}.{index}</title><ns>0</ns><id>{index}</id><revision><model>wikitext</model>"
                f'<text xml:space="preserve">{escape(text, {chr(13): "&#13;"})}</text></revision></page>\n'
                for index, text in enumerate(part)
            )
            dump = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">\n{pages}</mediawiki>'
            (folder / f"{number}.xml").write_bytes(dump.encode())
        return {"paths": [str(folder)]}

    def _left_out(self, page: _Page) -> str:
        if page.namespace not in self.config.namespaces:
            return "namespace"
        if page.redirect and not self.config.redirects:
            return "redirect"
        if page.model != "wikitext":
            return "model"
        return "" if page.text.strip() else "empty"

    def _document(self, page: _Page, unread: frozenset[str], name: str) -> Text:
        text = page.text if self.config.markup == "keep" else wiki_markup.plain_text(page.text, unread)
        return Text(f"{page.title}\n\n{text}" if self.config.title else text, name)


class _Page:
    """A page with its newest revision, read out of its element."""

    def __init__(self, element: Any) -> None:
        self.title = element.findtext("{*}title") or ""
        self.place = f" page {element.findtext('{*}id')} {self.title}"
        self.namespace = int(element.findtext("{*}ns") or 0)
        self.redirect = element.find("{*}redirect") is not None
        revisions = element.findall("{*}revision")
        self.text = self.model = ""
        if revisions:
            self.text = revisions[-1].findtext("{*}text") or ""
            self.model = revisions[-1].findtext("{*}model") or "wikitext"


def _local_names(siteinfo: Any) -> frozenset[str]:
    """What the namespaces of files and categories are called in this wiki."""
    spaces = siteinfo.iterfind("{*}namespaces/{*}namespace")
    return frozenset(
        space.text.lower() for space in spaces if space.text and space.get("key") in _FILES_AND_CATEGORIES
    )
