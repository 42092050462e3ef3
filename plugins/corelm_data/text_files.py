"""Plain text files as documents."""

from __future__ import annotations

import codecs
import glob
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, LocalPath, RecordName, Source, Text

_CHUNK = 1 << 20


class TextFiles(Source):
    """Plain text files in UTF-8.

    Each file is a document, or, with ``separator``, each part of a file between separators (line breaks around it are
    taken off, parts of nothing but white space aren't documents). Files come in the order of ``paths``, those of a
    folder or a glob sorted by path; records are named by the way from there, so that it can be moved. A byte order
    mark is taken off; nothing else is changed.

    Without a separator a file is held in memory whole; with one, a file of any size streams through one part at a
    time.
    """

    class Config(ComponentConfig):
        """Which files, and how they are cut."""

        paths: list[LocalPath] = Field(
            min_length=1,
            description="Files, folders (all files below them but hidden ones) and globs such as texts/**/*.txt.",
        )
        separator: str | None = Field(
            None, min_length=1, description="What stands between documents of one file, e.g. <|endoftext|> or \\n\\n."
        )

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """Text."""
        return "text"

    def records(self, start: int = 0) -> Iterator[Text]:
        """Yield documents from position ``start`` on.

        Raises:
            UserError: a path leads nowhere; a file is empty, unreadable or not UTF-8 (with the byte's offset).
        """
        return itertools.islice(self._documents(), start, None)

    def fingerprint(self) -> str:
        """Digest of names, sizes and contents."""
        total = hashlib.sha256()
        for path, name in self._files().items():
            total.update(f"{name}\0{path.stat().st_size}\0".encode())
            for chunk in _chunks(path):
                total.update(chunk)
        return total.hexdigest()

    def _documents(self) -> Iterator[Text]:
        separator = self.config.separator
        for path, name in self._files().items():
            if separator is None:
                text = "".join(_decoded(path))
                if text.strip():
                    yield Text(text, f"text-files: {name}")
                    continue
                raise _empty(path)
            number = 0
            for part in _split(_decoded(path), separator):
                if part.strip():
                    number += 1
                    yield Text(part.strip("\r\n"), f"text-files: {name}#{number}")
            if number == 0:
                raise _empty(path)

    def _files(self) -> dict[Path, str]:
        """Each file with the name of its records."""
        found: dict[Path, str] = {}
        for entry in self.config.paths:
            matched = _matching(entry)
            if not matched:
                raise UserError(
                    f"source text-files: {entry}: no such file",
                    remedy="Paths in a recipe start from the recipe's folder; folders and globs must hold files.",
                    code="file-not-found",
                )
            for path in matched:
                found.setdefault(path, path.relative_to(_root(entry)).as_posix())
        return found


def _root(entry: str) -> Path:
    """The folder that names of files start from: the entry itself, or what stands before its first wildcard."""
    path = Path(entry)
    if path.is_dir():
        return path
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])
    return path.parent if path.exists() else Path(*fixed)


def _matching(entry: str) -> list[Path]:
    path = Path(entry)
    if path.is_dir():
        below = (candidate for candidate in path.rglob("*") if candidate.is_file())
        return sorted(p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts))
    if path.exists():
        return [path]
    return sorted(Path(name) for name in glob.glob(entry, recursive=True) if Path(name).is_file())


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise UserError(
            f"source text-files: {path}: can't be read: {error.strerror or error}", code="file-unreadable"
        ) from error


def _decoded(path: Path) -> Iterator[str]:
    """Text of a file in chunks, without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, first = 0, True
    for chunk in itertools.chain(_chunks(path), [b""]):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise UserError(
                f"source text-files: {path}: not UTF-8 at byte {offset - pending + error.start} ({error.reason})",
                remedy="Convert it, e.g. with `iconv -f ENCODING -t UTF-8`, or leave the file out.",
                code="not-utf8",
            ) from error
        offset += len(chunk)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        yield text


def _split(chunks: Iterator[str], separator: str) -> Iterator[str]:
    """Parts between separators; holds no more than one part and one chunk."""
    rest: list[str] = []
    for chunk in chunks:
        # A separator may straddle chunks: the end of what is held is looked at again, no more of it.
        seam = _tail(rest, len(separator) - 1)
        parts = (seam + chunk).split(separator)
        rest.append(parts[0])
        for part in parts[1:]:
            yield "".join(rest)
            rest = [part]
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


def _empty(path: Path) -> UserError:
    return UserError(f"source text-files: {path}: the file holds no text", remedy="Leave it out.", code="file-empty")
