"""Pages of Common Crawl and of other web archives, as HTML."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Final

from corelm_data.lines import not_utf8
from corelm_data.web_archives import ArchiveConfig, Entry, WebArchive, payload
from corelm_data.web_pages import decoded_html

_PAGES: Final = ("text/html", "application/xhtml+xml")


class CommonCrawl(WebArchive):
    """Pages out of WARC files, as HTML.

    Each response of HTTP with status 200 whose type is HTML is a document: the page as it was sent, as text. Its
    encoding is found as browsers do (``web_pages``), its compression undone; markup is left to cleaners. Records are
    named by file, number and address. Responses with another ``status`` or ``content-type`` and ``revisit`` records are
    left out and counted; requests and metadata aren't documents.

    Files are read by warcio, record by record, compressed (.warc.gz) or not. Lengths and digests are checked (ISO 28500).
    """

    class Config(ArchiveConfig):
        """Which archives."""

    called: ClassVar[str] = "warc"
    endings: ClassVar[frozenset[str]] = frozenset({".warc"})

    def taken(self, entry: Entry) -> str | None:
        """A page that was there."""
        if entry.type == "revisit":
            return "revisit"
        if entry.type != "response" or not entry.uri.startswith(("http:", "https:")):
            return None
        headers = entry.read_headers()
        if headers is None or headers.get_statuscode() != "200":
            return "status"
        kind = (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower()
        return "" if kind in _PAGES else "content-type"

    def text(self, entry: Entry, content: bytes) -> str:
        """The page."""
        page = payload(entry.http, content, self.config.longest)
        return decoded_html(page, entry.http.get_header("Content-Type") or "")

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two archives, the first one compressed, with a request among the responses."""
        return _written(folder, "warc", texts, _page)


class CommonCrawlText(WebArchive):
    """Texts out of WET files, in which Common Crawl publishes what is left of pages without their markup.

    Each conversion record is a document, in UTF-8 as the format says. Records are named by file, number and address.
    Files are read by warcio, record by record, compressed (.warc.wet.gz) or not. Lengths and digests are checked.
    """

    class Config(ArchiveConfig):
        """Which archives."""

    called: ClassVar[str] = "wet"
    endings: ClassVar[frozenset[str]] = frozenset({".wet"})

    def taken(self, entry: Entry) -> str | None:
        """A converted page."""
        return "" if entry.type == "conversion" else None

    def text(self, entry: Entry, content: bytes) -> str:
        """The text."""
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(error, " of the record") from error

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two archives, the first one compressed."""
        return _written(folder, "warc.wet", texts, _converted)


def _written(folder: Path, ending: str, texts: Sequence[str], write: Any) -> dict[str, Any]:
    writer = importlib.import_module("warcio.warcwriter").WARCWriter
    half = len(texts) // 2
    for number, part in enumerate((texts[:half], texts[half:])):
        packed = number == 0
        with (folder / f"{number}.{ending}{'.gz' if packed else ''}").open("wb") as file:
            archive = writer(file, gzip=packed)
            for index, text in enumerate(part):
                write(archive, f"https://example.org/{number}/{index}", text)
    return {"paths": [str(folder)]}


def _named(uri: str) -> dict[str, str]:
    """What would else be a time and a random number."""
    return {
        "WARC-Date": "2024-01-01T00:00:00Z",
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, uri)}>",
    }


def _page(archive: Any, uri: str, text: str) -> None:
    named = _named(uri)
    headers = importlib.import_module("warcio.statusandheaders").StatusAndHeaders
    asked = headers("GET / HTTP/1.1", [("Host", "example.org")], is_http_request=True)
    archive.write_record(archive.create_warc_record(uri, "request", http_headers=asked, warc_headers_dict=named))
    answered = headers("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
    page = BytesIO(f"<html><body><p>{text}</p></body></html>".encode())
    record = archive.create_warc_record(uri, "response", page, http_headers=answered, warc_headers_dict=named)
    archive.write_record(record)


def _converted(archive: Any, uri: str, text: str) -> None:
    content = BytesIO(text.encode())
    kind = {"warc_content_type": "text/plain", "warc_headers_dict": _named(uri)}
    archive.write_record(archive.create_warc_record(uri, "conversion", content, **kind))
