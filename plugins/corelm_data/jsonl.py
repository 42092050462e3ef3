"""Records out of JSON files."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import LocalPath, Record, RecordName, Source
from corelm_data.columns import RowError, TableConfig, record_of


class JsonLines(Source):
    """Records from a file of JSON lines.

    One JSON object per line (lines of nothing but white space are passed over), gzipped if the name ends in ``.gz``;
    ``columns`` says which of its values make a record. Streams. A file whose name ends in ``.json`` holds one JSON
    list of such objects instead and is read into memory whole; rows are then counted instead of lines.
    """

    class Config(TableConfig):
        """Which file, and what its columns mean."""

        path: LocalPath = Field(description="File: .jsonl, .jsonl.gz, or .json with one list.")

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """What ``yields`` says."""
        name: RecordName = config.yields
        return name

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: no such file; a line that is no JSON, no UTF-8 or no such record, named by file and number.
        """
        path = Path(self.config.path)
        rows = _listed(path) if path.suffix == ".json" else _lines(path)
        for where, read in itertools.islice(rows, start, None):
            try:
                yield record_of(read(), self.config, f"jsonl: {path.name}{where}")
            except (RowError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                raise UserError(
                    f"source jsonl: {path}{where}: {_why(error)}",
                    remedy=f"Mend the line, or set columns; a {self.config.yields} is expected.",
                    code="broken-line",
                ) from error

    def fingerprint(self) -> str:
        """Digest of name, size and content."""
        path = Path(self.config.path)
        total = hashlib.sha256(path.name.encode())
        try:
            total.update(f"\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    total.update(chunk)
        except OSError as error:
            raise _unreadable(path, error) from error
        return total.hexdigest()


class _Read:
    """A row that is parsed when it is asked for, so that rows can be passed over cheaply."""

    def __init__(self, line: bytes) -> None:
        self._line = line

    def __call__(self) -> Any:
        return json.loads(self._line.decode("utf-8").rstrip())


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Each row with its place in the file."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield f":{number}", _Read(line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"source jsonl: {path}: broken off or damaged after line {number}: {error}",
            remedy="Fetch the file again.",
            code="file-truncated",
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _listed(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"source jsonl: {path}: {_why(error, whole=True)}",
            remedy="A .json file holds one list of objects; name a file of JSON lines .jsonl.",
            code="broken-file",
        ) from error
    if not isinstance(rows, list):
        raise UserError(
            f"source jsonl: {path}: expected one list of objects, found {type(rows).__name__}",
            remedy="Name a file of JSON lines .jsonl.",
            code="broken-file",
        )
    for number, row in enumerate(rows, start=1):
        yield f": row {number}", lambda row=row: row


def _why(error: Exception, *, whole: bool = False) -> str:
    if isinstance(error, json.JSONDecodeError):
        place = f"line {error.lineno}, column {error.colno}" if whole else f"column {error.colno}"
        return f"not JSON: {error.msg} at {place}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}{'' if whole else ' of the line'} ({error.reason})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"source jsonl: {path}: can't be read: {error.strerror or error}",
        remedy="A path in a recipe starts from the recipe's folder.",
        code="file-not-found",
    )
