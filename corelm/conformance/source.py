"""Properties of sources."""

from __future__ import annotations

import itertools
import json
import tempfile
import tracemalloc
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.texts import CORPUS
from corelm.errors import UserError
from corelm.kinds.records import Choice, Conversation, Labelled, Preference, RecordName, Text

MINIMUM = 4
"""So many of these properties must say something about every part of the kind, and hold."""

TYPES: dict[str, Any] = {
    "text": Text,
    "conversation": Conversation,
    "preference": Preference,
    "labelled": Labelled,
    "choice": Choice,
}
FIRST = 12
"""Records looked at; sources may be long."""

LONG, LETTERS = 32, 2**20
"""Records of a long file, and how many letters each of them has."""


@cache
def files() -> dict[str, tuple[Any, ...]]:
    """Small files of each format that sources read from this machine, by the option that names them."""
    places = written(Path(tempfile.mkdtemp(prefix="corelm-kit-")))
    return {name: (value,) for name, value in places.items()}


def written(folder: Path, texts: Sequence[str] = CORPUS, tail: bytes = b"") -> dict[str, Any]:
    """The same texts as rows of JSON and as a folder of plain files; ``tail`` comes after the last of them."""
    rows = "".join(json.dumps({"text": t, "label": n % 2}, ensure_ascii=False) + "\n" for n, t in enumerate(texts))
    (folder / "rows.jsonl").write_bytes(rows.encode() + tail)
    (folder / "texts").mkdir()
    for number, content in enumerate(texts):
        last = tail if number == len(texts) - 1 else b""
        (folder / "texts" / f"{number:03}.txt").write_bytes(content.encode() + last)
    return {"path": str(folder / "rows.jsonl"), "paths": [str(folder / "texts")], "files": str(folder / "rows.jsonl")}


class SourceBench(Bench):
    """Sources that read files are given some."""

    kind = "source"
    pins = {"limit_bytes": None, "columns": {}, "split": "train", "revision": None, "name": None}

    def __init__(self) -> None:
        self.hints = files()

    def subject(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """Point the options that name files to the kit's files."""
        places = {name: values[0] for name, values in files().items()}
        return super().subject(part, draw, **{**pointed(part, places), **pins})


def pointed(part: PartUnderTest, places: dict[str, Any]) -> dict[str, Any]:
    """Options that make a source read these files, where it reads any."""
    fields = part.cls.Config.model_fields
    here = {name: value for name, value in places.items() if name in fields}
    if "files" in here:
        here["path"] = None
    return {**here, "yields": "text"} if here else {}


def _no_files(part: PartUnderTest) -> str | None:
    return (
        None if {"path", "paths", "files"} & set(part.cls.Config.model_fields) else "it reads no files of one's own"
    )


def _reading(part: PartUnderTest, draw: Draw, folder: Path, *content: Any) -> Any:
    """A source of the texts that are put into an empty folder."""
    folder.mkdir()
    return part.bench.subject(part, draw, **pointed(part, written(folder, *content))).part


def _first(source: Any, start: int = 0) -> list[Any]:
    return list(itertools.islice(source.records(start), FIRST))


@property_of(
    "source",
    statement="Records are of the type that yields names, and each says where it is from.",
    formula="∀ r ∈ records: type(r) = yields, name(r) ≠ ∅",
    catches="a preference that is a text, a message that can't point at the record",
    tier="io",
    examples=1,
)
def typed_and_named(part: PartUnderTest, draw: Draw) -> None:
    """Look at the first."""
    subject = part.bench.subject(part, draw)
    told = part.cls.yields(subject.config)
    assert told in get_args(RecordName), f"yields says {told!r}"
    records = _first(subject.part)
    assert records, "no records at all"
    for record in records:
        assert isinstance(record, TYPES[told]), f"yields says {told}, but a {type(record).__name__} came"
        assert record.name, f"a record without a name: {record!r}"


@property_of(
    "source",
    statement="records(k) is records() without the first k, for every k, again and again.",
    formula="records(k) = records()[k:], ∀ k",
    catches="a position that is off by one, an order that changes (set, directory order)",
    tier="bit",
    examples=2,
)
def resumes_by_position(part: PartUnderTest, draw: Draw) -> None:
    """Any k."""
    subject = part.bench.subject(part, draw)
    whole = _first(subject.part)
    for k in sorted({1, len(whole) // 2, len(whole)}):
        assert _first(subject.part, k)[: len(whole) - k] == whole[k:], (
            f"records({k}) is not what follows the first {k}"
        )
    assert _first(subject.rebuild()) == whole, "a source built again yields something else"


@property_of(
    "source",
    statement="The fingerprint is the same for the same data, and is a plain string.",
    formula="data = data′ ⇒ fingerprint = fingerprint′",
    catches="a time or a folder in the digest, so that every run is redone",
    tier="bit",
    examples=1,
)
def fingerprint_is_stable(part: PartUnderTest, draw: Draw) -> None:
    """Twice."""
    subject = part.bench.subject(part, draw)
    first, second = subject.part.fingerprint(), subject.rebuild().fingerprint()
    assert isinstance(first, str) and first, f"fingerprint {first!r}"
    assert first == second, "two sources of the same data have different fingerprints"


@property_of(
    "source",
    statement="Names are unique: nothing is doubled.",
    formula="r ≠ r′ ⇒ name(r) ≠ name(r′)",
    catches="a file that is read twice",
    seen="datasets#5360",
    tier="bit",
    examples=1,
)
def nothing_is_doubled(part: PartUnderTest, draw: Draw) -> None:
    """Names of the first records."""
    names = [record.name for record in _first(part.bench.subject(part, draw).part)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    assert not doubled, f"twice: {doubled}"


@property_of(
    "source",
    statement="Notes are sentences.",
    formula="notes: list of strings, none empty",
    catches="notes that nobody can read",
    tier="io",
    examples=2,
)
def notes_are_sentences(part: PartUnderTest, draw: Draw) -> None:
    """Strings."""
    notes = part.bench.subject(part, draw).part.notes()
    assert all(isinstance(note, str) and note.strip() for note in notes), f"notes {notes!r}"


@property_of(
    "source",
    statement="The fingerprint changes when the data do: a letter, the order of records, one record more.",
    formula="data ≠ data′ ⇒ fingerprint ≠ fingerprint′",
    catches="a digest of names and sizes alone, so that a corrected file is taken for the old one",
    tier="bit",
    examples=2,
    excuse=_no_files,
)
def fingerprint_follows_the_data(part: PartUnderTest, draw: Draw) -> None:
    """Another letter, same length; two records swapped; one more."""
    first, *rest = CORPUS
    others = {
        "another letter": (first.replace("cat", "cot", 1), *rest),
        "another order": (*rest[::-1], first),
        "one more": (*CORPUS, "One more."),
    }
    with tempfile.TemporaryDirectory() as name:
        before = _reading(part, draw, Path(name) / "before").fingerprint()
        for what, texts in others.items():
            after = _reading(part, draw, Path(name) / what, texts).fingerprint()
            assert after != before, f"{what}, and the fingerprint is as before"


@property_of(
    "source",
    statement="Where the data are makes no difference: moved, they have the same records, names and fingerprint.",
    formula="records(move(data)) = records(data), names included",
    catches="an absolute path in a name, so that samples and splits change on another machine",
    tier="bit",
    examples=2,
    excuse=_no_files,
)
def place_does_not_matter(part: PartUnderTest, draw: Draw) -> None:
    """The same files in two folders of other names."""
    with tempfile.TemporaryDirectory() as name:
        here, there = (_reading(part, draw, Path(name) / place) for place in ("here", "elsewhere"))
        assert _first(here) == _first(there), "moved, the data give other records, or records of other names"
        assert here.fingerprint() == there.fingerprint(), "moved, the data have another fingerprint"


@property_of(
    "source",
    statement="What is broken off or damaged raises an error that names the file; the epoch doesn't just end early.",
    formula="records(data ⧺ half a record) raises, naming the file",
    catches="a truncated shard that is read up to where it breaks, letters that are replaced by question marks",
    tier="io",
    examples=1,
    excuse=_no_files,
)
def damage_is_named(part: PartUnderTest, draw: Draw) -> None:
    """Half of a character in half of a row, at the end of the last file."""
    with tempfile.TemporaryDirectory() as name:
        source = _reading(part, draw, Path(name) / "broken", CORPUS, b'{"text": "\xe6\x97')
        try:
            count = len(list(source.records()))
        except UserError as error:
            told = str(error)
            assert "rows.jsonl" in told or f"{len(CORPUS) - 1:03}.txt" in told, f"the file is not named: {told}"
            return
    raise AssertionError(f"{count} records were read in silence; the last of them is broken off")


@property_of(
    "source",
    statement="It streams: its memory doesn't grow with the data.",
    formula="peak memory of records(2n) < 1.5 · that of records(n)",
    catches="read() of the whole file, a list of all records",
    tier="io",
    tolerance="16 and 32 records of a mebibyte: what holds them all doubles, what holds some records or a chunk doesn't",
    examples=1,
    excuse=_no_files,
)
def it_streams(part: PartUnderTest, draw: Draw) -> None:
    """Objects of Python's alone are counted, which is where lists of records would be."""
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for count in (LONG // 2, LONG):
            texts = [f"{n:03} " + "word " * (LETTERS // 5) for n in range(count)]
            source = _reading(part, draw, Path(name) / str(count), texts)
            tracemalloc.start()
            try:
                came = sum(1 for _ in source.records())
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert came == count, f"{came} of {count} records came"
    assert peaks[1] < 1.5 * peaks[0], (
        f"{peaks[0] >> 20} MiB for {LONG // 2} MiB of records, {peaks[1] >> 20} for {LONG}"
    )
