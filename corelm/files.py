"""Files that are whole or not there: atomic writes, digests, locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from corelm.errors import UserError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors of the system that only writing can have."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of plain data, hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's contents, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([[path.relative_to(folder).as_posix(), sha256(path)] for path in files])


def sync(path: Path) -> None:
    """Flush a file's or folder's contents to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that after a kill it holds either the old or the new content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    with writing(path):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is no JSON (names it).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not readable as JSON: {error}",
            remedy="The file was cut off or altered; remove its folder to have it made again.",
            code="file-damaged",
        ) from error


def publish(made: Path, final: Path) -> None:
    """Move a finished folder to its final name; what stood there before goes, in one step for any reader."""
    for path in made.rglob("*"):
        sync(path)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    made.rename(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path, only: frozenset[int] | None = None) -> Iterator[None]:
    """Turn "disk full" and "can't write there" into a message that names the path.

    Args:
        path: what is written.
        only: the system's errors that are meant; None: all of them.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = _system_error(error)
        if number is None or (only is not None and number not in only):
            raise
        raise UserError(
            f"{path}: can't be written: {os.strerror(number)}",
            remedy=(
                "Free some space; a run then goes on from its last checkpoint."
                if number in (errno.ENOSPC, errno.EDQUOT)
                else "Choose another place."
            ),
            code="not-writable",
        ) from error


def _system_error(error: Exception) -> int | None:
    """Number of the system's error behind this one; safetensors says it in words."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the only right to work in ``folder``.

    Raises:
        UserError: another run holds it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another run is at work here",
                remedy="Wait for it, stop it, or choose another folder with --out.",
                code="run-locked",
            ) from error
        yield
    finally:
        os.close(handle)


def new_folder(path: str | Path) -> Path:
    """A path for a folder to be made.

    Raises:
        UserError: something is there already.
    """
    folder = Path(path)
    if folder.exists():
        raise UserError(f"{folder} is there already", remedy="Choose another name, or remove it.", code="out-exists")
    return folder
