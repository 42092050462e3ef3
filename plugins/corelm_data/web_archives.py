"""Web archives: what Common Crawl publishes, read record by record."""

from __future__ import annotations

import importlib
import itertools
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any, Final

from pydantic import Field

from corelm.kinds import Count, Text, library
from corelm_data.compressed import Damaged, opened
from corelm_data.reading import Broken, FilesConfig, FileSource, Row, SourceFile

_PIECE: Final = 1 << 16


class ArchiveConfig(FilesConfig):
    """Which archives."""

    longest: Count = Field(
        16_000_000, gt=0, description="Most bytes of a record; a longer one is broken, and never held."
    )


class WebArchive(FileSource):
    """A source of records of web archives (ISO 28500), read by warcio.

    What a record says of itself is checked: its length against what follows it, its digests against its content.
    Where a length lies, what follows can't be told from content, so the rest of the file is broken with it.
    """

    @abstractmethod
    def taken(self, entry: Entry) -> str | None:
        """Why an entry is no document; '' if it is one, None where it isn't meant to be."""

    @abstractmethod
    def text(self, entry: Entry, content: bytes) -> str:
        """The document in an entry.

        Raises:
            Broken: it can't be read as text.
        """

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """Documents of an archive.

        Raises:
            Broken: a length that lies, or something that is no record.
        """
        with opened(file.path) as stream:
            # Headers of HTTP aren't parsed by warcio: it takes a record that ends within them for the archive's end.
            archive = _iterator()(stream, no_record_parse=True, check_digests=True)
            for number in itertools.count(1):
                record = self._next(archive, number)
                if record is None:
                    return
                entry = Entry(record, self.config.longest)
                place = f" record {number} {entry.uri}".rstrip()
                try:
                    reason = self.taken(entry)
                    if reason == "":
                        yield Row(place, partial(self._document, entry))
                    elif reason is not None:
                        self.report.leave_out(reason, f"{file.name}{place}")
                    entry.finish()
                except Broken as error:
                    raise _lying(f"record {number}: {error}") from error

    def _next(self, archive: Any, number: int) -> Any:
        failed = importlib.import_module("warcio.exceptions").ArchiveLoadFailed
        try:
            record = next(archive, None)
        except Damaged:
            raise
        except (failed, ValueError) as error:
            first = str(error).strip().splitlines() or ["no record"]
            raise _lying(f"record {number - 1}: {first[0]}") from error
        if archive.err_count:
            raise _lying(f"record {number - 1}: more follows than its length says")
        return record

    def _document(self, entry: Entry, name: str) -> Text:
        text = self.text(entry, entry.read())
        if not text.strip():
            raise Broken("it holds no text", code="record-empty")
        return Text(text, name)


class Entry:
    """A record of an archive; read once, within bounds, and to its end."""

    def __init__(self, record: Any, longest: int) -> None:
        self._stream, self._length, self._digests = record.raw_stream, record.length, record.digest_checker
        self._longest = longest
        self.type: str = record.rec_type or ""
        self.uri: str = record.rec_headers.get_header("WARC-Target-URI") or ""
        self.http: Any = None

    def read_headers(self) -> Any:
        """The status and headers of HTTP that the content begins with."""
        parser = importlib.import_module("warcio.statusandheaders").StatusAndHeadersParser
        held: list[bytes] = []
        while (line := self._stream.readline(_PIECE)) and len(held) < 1000:
            held.append(line)
            if not line.strip():
                break
        else:
            self._whole()
        try:
            self.http = parser(["HTTP/1.0", "HTTP/1.1"], verify=False).parse(BytesIO(b"".join(held)))
        except EOFError:
            self.http = None
        return self.http

    def read(self) -> bytes:
        """What hasn't been read yet.

        Raises:
            Broken: it is too long, shorter than it says, or not what its digest says.
        """
        pieces, length = [], 0
        while piece := self._stream.read(_PIECE):
            pieces.append(piece)
            length += len(piece)
            if length > self._longest:
                raise Broken(
                    f"a record of more than {self._longest:,} bytes",
                    remedy="Raise longest.",
                    code="record-too-long",
                )
        self._whole()
        if any(problem.startswith("block digest failed") for problem in self._digests.problems):
            raise Broken("its digest isn't that of its content", remedy="Fetch the file again.", code="digest-wrong")
        return b"".join(pieces)

    def finish(self) -> None:
        """Pass over what hasn't been read.

        Raises:
            Broken: it is shorter than it says.
        """
        while self._stream.read(_PIECE):
            pass
        self._whole()

    def _whole(self) -> None:
        if self._length is None or getattr(self._stream, "limit", 0) > 0:
            raise _lying("it ends before its length says")


def _lying(why: str) -> Broken:
    return Broken(
        why,
        remedy="Its length lies, or the file is damaged: fetch the file again.",
        code="archive-broken",
    )


def _iterator() -> Any:
    module = library("warcio.archiveiterator", extra="data", by="a web archive")

    class Quiet(module.WARCIterator):  # type: ignore[misc]
        """Counts what doesn't fit, and leaves saying so to the source."""

        INC_RECORD = ""

    return Quiet


def payload(headers: Any, content: bytes, longest: int) -> bytes:
    """The body of an HTTP response, as the server meant it.

    Raises:
        Broken: its encoding is unknown or damaged, or it is too long when unpacked.
    """
    if (headers.get_header("Transfer-Encoding") or "").lower() == "chunked":
        chunked = importlib.import_module("warcio.bufferedreaders").ChunkedDataReader
        content = chunked(BytesIO(content)).read()
    coding = (headers.get_header("Content-Encoding") or "identity").lower().strip()
    if coding in ("identity", ""):
        return content
    unpack = _CODINGS.get(coding)
    if unpack is None:
        raise Broken(f"content encoded as {coding}", code="coding-unknown")
    try:
        plain = unpack(content, longest)
    except zlib.error as error:
        raise Broken(f"damaged {coding}: {error}", code="coding-damaged") from error
    return plain


def _inflated(bits: int, content: bytes, longest: int) -> bytes:
    unpacker = zlib.decompressobj(bits)
    plain = unpacker.decompress(content, longest)
    if not unpacker.eof:
        raise zlib.error("it breaks off, or is too long")
    return plain


def _deflated(content: bytes, longest: int) -> bytes:
    try:
        return _inflated(15, content, longest)
    except zlib.error:
        return _inflated(-15, content, longest)  # some servers leave the header out


_CODINGS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": partial(_inflated, 31),
    "x-gzip": partial(_inflated, 31),
    "deflate": _deflated,
}
