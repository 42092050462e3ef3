"""Properties of sources: types, names, positions, fingerprints. Those of data of one's own are in
``source_files`` and ``source_folders``, those of formats by name in ``source_formats`` and ``source_library``.
"""

from __future__ import annotations

import itertools
from typing import Any, get_args

from corelm.conformance.framework import Draw, PartUnderTest, property_of
from corelm.conformance.laws.source import bench
from corelm.conformance.laws.source import files as source_files
from corelm.conformance.laws.source import folders as source_folders
from corelm.conformance.laws.source import formats as source_formats
from corelm.conformance.laws.source import library as source_library
from corelm.conformance.laws.source.bench import FIRST, SourceBench, files, first_records, no_files
from corelm.kinds.records import Choice, Conversation, Labelled, Preference, RecordName, Text, texts_of

__all__ = [
    "MINIMUM",
    "SourceBench",
    "bench",
    "files",
    "source_files",
    "source_folders",
    "source_formats",
    "source_library",
]

MINIMUM = 5
"""So many of these properties must say something about every part of the kind, and hold."""

TYPES: dict[str, Any] = {
    "text": Text,
    "conversation": Conversation,
    "preference": Preference,
    "labelled": Labelled,
    "choice": Choice,
}


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
    records = first_records(subject.part)
    assert records, "no records at all"
    for record in records:
        assert isinstance(record, TYPES[told]), f"yields says {told}, but a {type(record).__name__} came"
        assert record.name, f"a record without a name: {record!r}"


@property_of(
    "source",
    statement="records(k) is records() without the first k, for every k, again and again.",
    formula="records(k) = records()[k:], ∀ k",
    catches="a position that is off by one, an order that changes (set, directory order), a record that is repeated or lost "
    "where one file ends and the next begins",
    tier="bit",
    examples=2,
)
def resumes_by_position(part: PartUnderTest, draw: Draw) -> None:
    """Every k and one behind the end, or some where reading takes long."""
    subject = part.bench.subject(part, draw)
    whole = first_records(subject.part)
    some = {1, len(whole) // 2, len(whole)} if no_files(part) else range(1, len(whole) + 1)
    for k in some:
        assert first_records(subject.part, k)[: len(whole) - k] == whole[k:], (
            f"records({k}) is not what follows the first {k}"
        )
    if len(whole) < FIRST:
        assert not first_records(subject.part, len(whole) + 1), "there are records behind the last one"
    assert first_records(subject.rebuild()) == whole, "a source built again yields something else"


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
    names = [record.name for record in first_records(part.bench.subject(part, draw).part)]
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
    statement="The report counts what came, record by record, and a mixture's parts add up to the whole.",
    formula="report.records = n, report.characters = Σ|r|, Σ_parts records = n after n records of read()",
    catches="a report of what was read ahead, a part that is counted by another's name",
    tier="bit",
    examples=1,
)
def what_came_is_counted(part: PartUnderTest, draw: Draw) -> None:
    """After each of the first records, from a position on."""
    source = part.bench.subject(part, draw).part
    length = 0
    for number, record in enumerate(itertools.islice(source.read(1), FIRST), start=1):
        length += sum(map(len, texts_of(record)))
        found = source.report
        assert (found.records, found.characters) == (number, length), (
            f"after {number} records of {length} characters the report says {found.records} of {found.characters}"
        )
        if found.parts:
            parts = sum(each.records for each in found.parts.values())
            assert parts == number, f"{number} records came, and the parts gave {parts} together"
            told = found.sentences()
            for name, each in found.parts.items():
                sentence = (
                    f"{name}: {each.records:,} records ({each.records / number:.1%}), {each.characters:,} characters"
                )
                assert sentence in told, f"the report doesn't say {sentence!r}: {told}"
