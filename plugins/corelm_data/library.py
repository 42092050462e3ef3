"""Finds the source files of the standard library of the Python that runs this."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import os
import sys
import sysconfig
import tokenize
from pathlib import Path
from typing import Final, Literal

from corelm.errors import UserError

LEFT_OUT: Final[dict[str, str]] = {
    "site-packages": "installed packages",
    "dist-packages": "installed packages",
    "test": "tests",
    "tests": "tests",
    "__pycache__": "compiled files",
    "lib-dynload": "compiled modules",
    "config-*": "build files",
    "_bundled": "wheels",
    "_sysconfigdata*.py": "made by the build, different on each machine",
    "sitecustomize.py": "local configuration",
    "usercustomize.py": "local configuration",
    "encodings": "tables of code pages",
    "idlelib": "an editor",
    "turtledemo": "demonstrations",
    "pydoc_data": "its help topics are documents of their own",
}
"""Folders and files that are no library text, by name at any depth, and why."""

_NOT_EVERYWHERE: Final = frozenset({"msilib", "msvcrt", "nis", "nt", "ossaudiodev", "spwd", "winreg", "winsound"})
"""Modules that only some operating systems have."""


Part = Literal["train", "holdout", "all"]

HOLDOUT: Final = 10
"""One in so many files is held out."""


def root() -> Path:
    """Folder of the standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def files(folder: Path) -> list[str]:
    """Paths of the library's ``.py`` files below ``folder``, with slashes, sorted.

    Raises:
        UserError: there are none.
    """
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _left_out(name)]
        place = Path(here).relative_to(folder)
        found += [(place / name).as_posix() for name in names if name.endswith(".py") and not _left_out(name)]
    if not found:
        raise UserError(
            f"{folder}: this Python comes without the source files of its standard library",
            remedy="Use a Python that has them, or another source such as text-files.",
            code="stdlib-without-source",
        )
    return sorted(found)


def read(path: Path) -> str | None:
    """Text of a source file in the encoding that it declares; None: it can't be decoded."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return None


def held_out(path: str) -> bool:
    """Whether a file is kept for evaluation: one in ten, by hash of its path, whatever else there is."""
    return int.from_bytes(hashlib.sha256(f"part: {path}".encode()).digest()[:8], "big") % HOLDOUT == 0


def wanted(path: str, part: Part) -> bool:
    """Whether a file belongs to a part of the library."""
    return part == "all" or held_out(path) == (part == "holdout")


def digest(parts: list[tuple[str, bytes]]) -> str:
    """Digest of names, sizes and contents."""
    total = hashlib.sha256()
    for name, content in parts:
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def notes(folder: Path) -> list[str]:
    """What is left out, what this distribution lacks, and which files can't be decoded."""
    present = sorted({name for _, folders, names in os.walk(folder) for name in [*folders, *names]})
    reasons: dict[str, list[str]] = {}
    for pattern, reason in LEFT_OUT.items():
        if fnmatch.filter(present, pattern):
            reasons.setdefault(reason, []).append(pattern)
    said = [f"{', '.join(patterns)} ({reason})" for reason, patterns in reasons.items()]
    lines = [f"standard library of Python {sys.version.split()[0]}; left out: {'; '.join(said) or 'nothing'}"]
    lacking = missing(folder)
    if lacking:
        lines.append(
            f"this distribution splits the library; not installed here, so not in the corpus: {', '.join(lacking)}"
        )
    unreadable = [name for name in files(folder) if read(folder / name) is None]
    if unreadable:
        lines.append(f"left out because they can't be decoded: {', '.join(unreadable)}")
    return lines


def missing(folder: Path) -> list[str]:
    """Public modules that belong to this version of Python and aren't here."""
    names = [name for name in sys.stdlib_module_names if not name.startswith("_") and name not in _NOT_EVERYWHERE]
    return sorted(
        name
        for name in names
        if not (folder / name).is_dir()
        and not (folder / f"{name}.py").is_file()
        and importlib.util.find_spec(name) is None
    )


def _left_out(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT)
