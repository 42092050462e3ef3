"""What sources that read files share: which files, positions, and what becomes of broken records."""

from __future__ import annotations

import glob
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from corelm.errors import UserError
from corelm.kinds import ComponentConfig, LocalPath, Record, Source
from corelm_data import digests
from corelm_data.compressed import Damaged, plain_suffix


class Broken(ValueError):  # noqa: N818
    """What is wrong with a record; raised between records, with the rest of a file.

    Args:
        message: what is wrong; the reader adds source, file and place.
        remedy: what to do instead.
        code: a stable name, under which it is counted where broken records are skipped.
    """

    def __init__(self, message: str, *, remedy: str = "", code: str = "broken-record") -> None:
        super().__init__(message)
        self.remedy, self.code = remedy, code


class ReadingConfig(ComponentConfig):
    """What becomes of broken records."""

    broken: Literal["refuse", "skip"] = Field(
        "refuse",
        description="What becomes of a broken record: refuse ends the reading with an error that names it; skip leaves "
        "it out, counted with its place in the corpus report. What follows in a file that is broken off or whose "
        "structure is lost counts as one.",
    )


class FilesConfig(ReadingConfig):
    """Which files."""

    paths: list[LocalPath] = Field(
        min_length=1,
        description="Files, folders (the files below them that have a usual ending, but hidden ones) and globs such as "
        "data/**/*.gz.",
    )


@dataclass(frozen=True)
class SourceFile:
    """A file with the name that its records bear: its way from the folder that the config names."""

    path: Path
    name: str


@dataclass(frozen=True)
class Row:
    """A record that is made when it is asked for, so that records can be passed over cheaply.

    Attributes:
        place: in its file, e.g. ``:17``; follows the file's name.
        make: the record of a given name; raises ``Broken``.
    """

    place: str
    make: Callable[[str], Record]


class CarefulSource(Source):
    """A source whose config says what becomes of broken records.

    Attributes:
        called: name of the part, which heads names and errors.
    """

    called: ClassVar[str] = ""

    def broken(self, error: Broken, where: str, place: str) -> None:
        """Raise a broken record as the user's to mend, or count it where it is to be skipped.

        Args:
            error: what is wrong.
            where: as errors say it: the whole path.
            place: as names say it.
        """
        if self.config.broken == "skip":
            self.report.leave_out(error.code, place)
            return
        remedy = f"{error.remedy} `broken: skip` leaves it out, and counts it.".lstrip()
        raise UserError(f"source {self.called}: {where}: {error}", remedy=remedy, code=error.code) from error


class FileSource(CarefulSource):
    """A source of files, one after the other.

    Attributes:
        endings: of the files that are taken from a folder, those of compression left aside; none: all files.
    """

    endings: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def rows(self, file: SourceFile) -> Iterator[Row]:
        """The records of a file; what a rule leaves out is counted in ``report`` and is none.

        Raises:
            Broken, Damaged, OSError: what follows in the file can't be read.
        """

    def entries(self) -> list[str]:
        """Paths and globs that the config names."""
        paths: list[str] = self.config.paths
        return paths

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: no such file; one that can't be read; a broken record, unless broken ones are skipped.
        """
        passed = 0
        for file in self.files():
            for row in self._careful(file):
                # Which records are broken is known when they have been made, so only where none may be broken
                # can they be passed over unread.
                if passed < start and self.config.broken == "refuse":
                    passed += 1
                    continue
                name = f"{file.name}{row.place}"
                try:
                    record = row.make(f"{self.called}: {name}")
                except (Broken, Damaged, OSError) as error:
                    self.broken(as_broken(error), f"{file.path}{row.place}", name)
                    continue
                passed += 1
                if passed > start:
                    yield record

    def fingerprint(self) -> str:
        """Digest of names, sizes and contents (see ``digests``)."""
        files = [(file.name, file.path) for file in self.files()]
        try:
            return digests.digest(files)
        except OSError as error:
            raise UserError(
                f"source {self.called}: {error.filename}: can't be read: {error.strerror or error}",
                remedy="Check the rights of the file, or leave it out.",
                code="file-unreadable",
            ) from error

    def files(self) -> list[SourceFile]:
        """The files, each once, those of a folder or glob sorted.

        Raises:
            UserError: a path leads to no file.
        """
        found: dict[Path, SourceFile] = {}
        for entry in self.entries():
            matched = self._matching(entry)
            if not matched:
                raise self._nothing_at(entry)
            for path in matched:
                found.setdefault(path, SourceFile(path, path.relative_to(root_of(entry)).as_posix()))
        return list(found.values())

    def wanted(self, path: Path) -> bool:
        """Whether a file below a folder that the config names is taken."""
        return not self.endings or plain_suffix(path) in self.endings

    def _careful(self, file: SourceFile) -> Iterator[Row]:
        """The rows of a file, whose end may be lost where broken records are skipped."""
        try:
            yield from self.rows(file)
        except (Broken, Damaged, OSError) as error:
            self.broken(as_broken(error), str(file.path), file.name)

    def _nothing_at(self, entry: str) -> UserError:
        ending = f" ending in {', '.join(sorted(self.endings))}" if self.endings else ""
        empty = Path(entry).is_dir()
        return UserError(
            f"source {self.called}: {entry}: {f'the folder holds no files{ending}' if empty else 'no such file or folder'}",
            remedy=f"Paths in a recipe start from the recipe's folder; folders and globs must hold files{ending}.",
            code="folder-empty" if empty else "file-not-found",
        )

    def _matching(self, entry: str) -> list[Path]:
        path = Path(entry)
        if path.is_dir():
            below = (candidate for candidate in path.rglob("*") if candidate.is_file())
            shown = (p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts))
            return sorted(p for p in shown if self.wanted(p))
        if path.exists():
            return [path]
        return sorted(Path(name) for name in glob.glob(entry, recursive=True) if Path(name).is_file())


def as_broken(error: Broken | Damaged | OSError) -> Broken:
    """Whatever can be wrong with a file, as what is wrong with a record."""
    if isinstance(error, Broken):
        return error
    if isinstance(error, Damaged):
        return broken_off(error)
    why = error.strerror or str(error)
    return Broken(f"can't be read: {why}", remedy="Check the rights of the file.", code="file-unreadable")


def broken_off(why: object, place: str = "") -> Broken:
    """The error for a file that ends or can't be unpacked from some place on."""
    return Broken(f"broken off or damaged{place}: {why}", remedy="Fetch the file again.", code="file-truncated")


def root_of(entry: str) -> Path:
    """The folder that names of files start from: the entry itself, or what stands before its first wildcard."""
    path = Path(entry)
    if path.is_dir():
        return path
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])
    return path.parent if path.exists() else Path(*fixed)
