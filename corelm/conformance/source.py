"""Properties of sources."""

from __future__ import annotations

import itertools
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, get_args

from corelm.conformance.bench import Bench, Subject
from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.texts import CORPUS
from corelm.kinds.records import Choice, Conversation, Labelled, Preference, RecordName, Text

TYPES: dict[str, Any] = {
    "text": Text,
    "conversation": Conversation,
    "preference": Preference,
    "labelled": Labelled,
    "choice": Choice,
}
FIRST = 12
"""Records looked at; sources may be long."""


@cache
def files() -> dict[str, tuple[Any, ...]]:
    """Small files of each format that sources read from this machine."""
    folder = Path(tempfile.mkdtemp(prefix="corelm-kit-"))
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"text": t, "label": n % 2}) + "\n" for n, t in enumerate(CORPUS))
    )
    texts = folder / "texts"
    texts.mkdir()
    for number, content in enumerate(CORPUS):
        (texts / f"{number}.txt").write_text(content)
    return {
        "path": (str(folder / "rows.jsonl"),),
        "paths": ([str(texts)],),
        "files": (str(folder / "rows.jsonl"),),
    }


class SourceBench(Bench):
    """Sources that read files are given some."""

    kind = "source"
    pins = {"limit_bytes": None, "columns": {}, "split": "train", "revision": None, "name": None}

    def subject(self, part: PartUnderTest, draw: Draw, **pins: Any) -> Subject:
        """Point the options that name files to the kit's files."""
        fields = part.cls.Config.model_fields
        here = {name: values[0] for name, values in files().items() if name in fields}
        if "files" in here:
            here["path"] = None
        if {"path", "paths", "files"} & set(fields):
            here["yields"] = "text"
        return super().subject(part, draw, **{**here, **pins})


def _first(source: Any, start: int = 0) -> list[Any]:
    return list(itertools.islice(source.records(start), FIRST))


@property_of(
    "source",
    statement="Records are of the type that yields names, and each says where it is from.",
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
    catches="a file that is read twice",
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
    catches="notes that nobody can read",
    tier="io",
    examples=2,
)
def notes_are_sentences(part: PartUnderTest, draw: Draw) -> None:
    """Strings."""
    notes = part.bench.subject(part, draw).part.notes()
    assert all(isinstance(note, str) and note.strip() for note in notes), f"notes {notes!r}"
