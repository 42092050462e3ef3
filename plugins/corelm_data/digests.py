"""Digests of files, each read once as long as it stays as it is.

The fingerprint of a source of files is a digest of the names, sizes and contents of all its files, so nothing that
changes in them goes unseen. The price of that is reading them, and corpora are large. Hence this rule: the digest of a
file of a mebibyte or more is written down with the state that the file was in (device, inode, size, and the times of
the last change of content and of the inode, to the nanosecond), and as long as the state is the same, the digest is
taken from there. The time of the inode can't be set back by programs, and a state younger than two seconds isn't
trusted, since clocks of file systems are coarse. So a corpus is read once for its fingerprint on a machine, once for
its text, and not at all by a run that finds everything done.

The book is ``corelm/digests.sqlite`` in the user's folder for caches (``XDG_CACHE_HOME``, else ``~/.cache``). Where it
can't be written, or is removed, files are read again, and nothing else changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

WORTH: Final = 1 << 20
"""Smaller files are read as quickly as they are looked up."""

SETTLED: Final = 2_000_000_000
"""Nanoseconds after which a change would show in the file's times."""

_CHUNK: Final = 1 << 20


def digest(files: Iterable[tuple[str, Path]]) -> str:
    """Digest of names, sizes and contents, in order.

    Raises:
        OSError: a file can't be read.
    """
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name}\0{path.stat().st_size}\0".encode())
        total.update(content(path))
    return total.hexdigest()


def content(path: Path) -> bytes:
    """Digest of a file's content: 32 bytes."""
    before = _state(path)
    if before[2] < WORTH:
        return _read(path)
    place, state = str(path.resolve()), repr(before)
    known = _looked_up(place, state)
    if known is not None:
        return known
    found = _read(path)
    if _state(path) == before and time.time_ns() - max(before[3:]) > SETTLED:
        _written_down(place, state, found)
    return found


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: Path) -> bytes:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.digest()


def _book() -> sqlite3.Connection:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "corelm"
    folder.mkdir(parents=True, exist_ok=True)
    book = sqlite3.connect(folder / "digests.sqlite", timeout=1)
    book.execute("CREATE TABLE IF NOT EXISTS digests (place TEXT PRIMARY KEY, state TEXT, digest BLOB)")
    return book


def _looked_up(place: str, state: str) -> bytes | None:
    with contextlib.suppress(sqlite3.Error, OSError, RuntimeError), contextlib.closing(_book()) as book:
        row = book.execute("SELECT digest FROM digests WHERE place = ? AND state = ?", (place, state)).fetchone()
        return None if row is None else bytes(row[0])
    return None


def _written_down(place: str, state: str, found: bytes) -> None:
    with contextlib.suppress(sqlite3.Error, OSError, RuntimeError), contextlib.closing(_book()) as book, book:
        book.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (place, state, found))
