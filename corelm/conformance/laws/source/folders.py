"""Properties of sources of files: which files of a folder are data, what their fingerprint follows, what memory they take."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import tempfile
from pathlib import Path

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.source.bench import first_records, last_file, marked, no_files, reading

LARGE = 3 * 2**19
"""Letters of a file that it pays to remember the digest of."""

MANY, LONG = 240, 40_000
"""Texts, and letters of each, that are more than what any reading needs."""


def _no_folders(part: PartUnderTest) -> str | None:
    return no_files(part) or (None if "paths" in part.cls.Config.model_fields else "it takes no folders as paths")


@property_of(
    "source",
    statement="Hidden files, and what is in hidden folders, are no data of a folder.",
    formula="records(data ∪ hidden) = records(data), and the fingerprint too",
    catches="an editor's or a download's notes in the corpus, a fingerprint that a file browser changes",
    tier="bit",
    examples=1,
    excuse=_no_folders,
)
def hidden_files_are_no_data(part: PartUnderTest, draw: Draw) -> None:
    """A hidden copy beside the last file, and one in a hidden folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        source = reading(part, draw, folder)
        records, fingerprint = first_records(source), source.fingerprint()
        last = last_file(folder)
        (folder / ".kept").mkdir()
        for copy in (last.with_name(f".{last.name}"), folder / ".kept" / last.name):
            shutil.copyfile(last, copy)
        after = part.cls(source.config)
        assert first_records(after) == records, "hidden files have records"
        assert after.fingerprint() == fingerprint, "hidden files change the fingerprint"


@property_of(
    "source",
    statement="The fingerprint changes when a file of a folder gets another name, because its records do.",
    formula="names ≠ names′ ⇒ fingerprint ≠ fingerprint′",
    catches="a digest of contents alone: samples that are drawn by name are taken for others",
    tier="bit",
    examples=1,
    excuse=_no_folders,
)
def fingerprint_follows_names(part: PartUnderTest, draw: Draw) -> None:
    """The last file or folder becomes another last one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        source = reading(part, draw, folder)
        names, before = [record.name for record in source.records()], source.fingerprint()
        last = max(path for path in folder.iterdir())
        last.rename(last.with_name(f"z{last.name}"))
        after = part.cls(source.config)
        assert [record.name for record in after.records()] != names, f"{last.name} was renamed, and no record was"
        assert after.fingerprint() != before, f"{last.name} was renamed, and the fingerprint is as before"


@property_of(
    "source",
    statement="The fingerprint of a large file follows its contents, also where its size and its time are put back.",
    formula="data ≠ data′ ⇒ fingerprint ≠ fingerprint′, size = size′, time = time′",
    catches="a digest that is remembered by size and time of change, which a copy keeps",
    tier="bit",
    examples=1,
    excuse=no_files,
)
def large_files_are_followed(part: PartUnderTest, draw: Draw) -> None:
    """A bit in the middle of the last file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        source = reading(part, draw, folder, marked(4, LARGE))
        before = source.fingerprint()
        assert part.cls(source.config).fingerprint() == before, "asked again, the fingerprint is another one"
        last = last_file(folder)
        content, status = bytearray(last.read_bytes()), last.stat()
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
        os.utime(last, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert part.cls(source.config).fingerprint() != before, (
            "a letter is another one, and the fingerprint is as before"
        )


def _resident() -> int | None:
    """Bytes of memory that this process has; None where that can't be told."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else None


def _give_back() -> None:
    """What was freed goes back to the system where that can be asked for: else it would hide what is kept later."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _reads_ahead(part: PartUnderTest) -> str | None:
    ahead = "files" in part.cls.Config.model_fields
    return no_files(part) or ("it reads ahead by more than the kit writes" if ahead else None)


@property_of(
    "source",
    statement="It streams beneath Python as well: what a library holds of the data is given back before more is read.",
    formula="max memory while n megabytes are read − memory before < n/2",
    catches="a tree of the whole file that nobody prunes, records that are kept",
    tier="stat",
    tolerance="What is kept is kept at least once, which is twice the bound; one text and a buffer are a hundredth of it.",
    examples=1,
    excuse=_reads_ahead,
)
def memory_does_not_grow(part: PartUnderTest, draw: Draw) -> None:
    """Ten megabytes, thrown away as they come, after a few that have loaded what reading needs."""
    with tempfile.TemporaryDirectory() as name:
        first_records(reading(part, draw, Path(name) / "few"))
        source = reading(part, draw, Path(name) / "data", marked(MANY, LONG))
        _give_back()
        before = most = _resident()
        read = 0
        for record in source.records():
            read += len(record.text)
            most = max(most or 0, _resident() or 0)
    if not before or not most or read < MANY * LONG // 2:
        raise NotApplicable("nobody knows its memory here, or it doesn't read all")
    grown = most - before
    assert grown < read / 2, f"while {read:,} characters were read and thrown away, memory grew by {grown:,} bytes"
