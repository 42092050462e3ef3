"""Plain text files as documents."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import Count, Text
from corelm_data.compressed import opened
from corelm_data.lines import not_utf8
from corelm_data.reading import Broken, FilesConfig, FileSource, Row, SourceFile

_CHUNK = 1 << 20


class TextFiles(FileSource):
    """Plain text files in UTF-8.

    Each file is a document, or, with ``separator``, each part of a file between separators (line breaks around it are
    taken off, parts of nothing but white space aren't documents). Files come in the order of ``paths``, those of a
    folder or a glob sorted by path; records are named by the way from there, so that it can be moved. Files whose names
    end in .gz, .bz2, .xz or .zst are unpacked. A byte order mark is taken off; nothing else is changed.

    Without a separator a file is held in memory whole; with one, a file of any size streams through one part at a
    time. No document is longer than ``longest``.
    """

    class Config(FilesConfig):
        """Which files, and how they are cut."""

        separator: str | None = Field(
            None, min_length=1, description="What stands between documents of one file, e.g. <|endoftext|> or \\n\\n."
        )
        longest: Count = Field(
            1_000_000_000, gt=0, description="Most characters of a document; a longer one is broken."
        )

    called: ClassVar[str] = "text-files"

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """Documents of a file.

        Raises:
            Broken: it is empty, not UTF-8 (with the byte's offset), or a document is too long.
        """
        separator, longest = self.config.separator, self.config.longest
        if separator is None:
            yield Row("", partial(_whole, file.path, longest))
            return
        number = 0
        for part in _split(_decoded(file.path), separator, longest):
            if part.strip():
                number += 1
                yield Row(f"#{number}", partial(Text, part.strip("\r\n")))
        if number == 0:
            raise empty()

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """A file per text."""
        for number, text in enumerate(texts):
            (folder / f"{number:03}.txt").write_bytes(text.encode())
        return {"paths": [str(folder)]}


def _whole(path: Path, longest: int, name: str) -> Text:
    return Text(decoded(path, longest), name)


def decoded(path: Path, longest: int) -> str:
    """The text of a file.

    Raises:
        Broken: it is empty, not UTF-8, or has more than ``longest`` characters.
    """
    pieces, length = [], 0
    for piece in _decoded(path):
        pieces.append(piece)
        length += len(piece)
        if length > longest:
            raise _too_long(longest)
    text = "".join(pieces)
    if not text.strip():
        raise empty()
    return text


def _chunks(path: Path) -> Iterator[bytes]:
    with opened(path) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _decoded(path: Path) -> Iterator[str]:
    """Text of a file in chunks, without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, first = 0, True
    for chunk in itertools.chain(_chunks(path), [b""]):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise not_utf8(error, offset=offset - pending) from error
        offset += len(chunk)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        yield text


def _split(chunks: Iterator[str], separator: str, longest: int) -> Iterator[str]:
    """Parts between separators; holds no more than one part and one chunk."""
    rest: list[str] = []
    length = 0
    for chunk in chunks:
        # A separator may straddle chunks: the end of what is held is looked at again, no more of it.
        seam = _tail(rest, len(separator) - 1)
        parts = (seam + chunk).split(separator)
        rest.append(parts[0])
        length += len(parts[0]) - len(seam)
        for part in parts[1:]:
            yield "".join(rest)
            rest, length = [part], len(part)
        if length > longest:
            raise _too_long(longest)
    yield "".join(rest)


def _tail(held: list[str], length: int) -> str:
    """Take the last ``length`` characters off a list of strings."""
    tail = ""
    while held and len(tail) < length:
        last = held.pop()
        needed = length - len(tail)
        if len(last) > needed:
            held.append(last[:-needed])
            last = last[-needed:]
        tail = last + tail
    return tail


def empty() -> Broken:
    """The error for a file of nothing but white space."""
    return Broken("the file holds no text", code="file-empty")


def _too_long(longest: int) -> Broken:
    return Broken(
        f"a document of more than {longest:,} characters",
        remedy="Set separator if the file holds several documents; else raise longest.",
        code="document-too-long",
    )
