"""Typed records as lines of JSON, and documents split by hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from corelm.errors import UserError
from corelm.files import writing
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.records import Choice, Conversation, Labelled, Message, Preference, Record, Text

_TYPES: dict[str, type[Any]] = {
    "text": Text,
    "conversation": Conversation,
    "preference": Preference,
    "labelled": Labelled,
    "choice": Choice,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}

Split = Literal["train", "holdout", "all"]


def encode_record(record: Record) -> str:
    """One line of JSON, without the line break."""
    return json.dumps({"type": _NAMES[type(record)], **dataclasses.asdict(record)}, ensure_ascii=False)


def decode_record(line: str) -> Record:
    """What ``encode_record`` wrote."""
    fields: dict[str, Any] = json.loads(line)
    cls = _TYPES[fields.pop("type")]
    for name in ("messages", "prompt"):
        if name in fields:
            fields[name] = tuple(Message(**message) for message in fields[name])
    for name in ("contexts", "endings"):
        if name in fields:
            fields[name] = tuple(fields[name])
    record: Record = cls(**fields)
    return record


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as lines; returns how many."""
    count = 0
    with writing(path), path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(encode_record(record) + "\n")
            count += 1
    return count


def read_records(path: Path) -> Iterator[Record]:
    """Read what ``write_records`` wrote."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield decode_record(line)


def held_out(record: Record, share: float) -> bool:
    """Whether a record belongs to the held-out part: by hash of its content alone.

    Adding or removing other records never moves it; copies of a text are on the same side.
    """
    if share <= 0:
        return False
    content = dataclasses.replace(record, name="")
    value = int.from_bytes(hashlib.sha256(encode_record(content).encode()).digest()[:8], "big")
    return value < share * 2**64


def stream(data: DataConfig, split: Split, note: Callable[[str], None] = lambda sentence: None) -> Iterator[Record]:
    """Read, clean, limit and split the records of a ``data`` section.

    Args:
        data: the section.
        split: which part.
        note: is told at the end what was left out, and what each part of a mixture gave.

    Raises:
        UserError: the source has no records.
    """
    source = data.source.build()
    records = readable(data.source, source.read())
    for cleaner in data.clean:
        records = cleaner.build().clean(records)
    count = 0
    for record in records:
        if data.limit is not None and count >= data.limit:
            break
        count += 1
        if split == "all" or held_out(record, data.holdout) == (split == "holdout"):
            yield record
    if count == 0:
        raise empty(data.source)
    for sentence in source.report.sentences(f"source {data.source.name}"):
        note(sentence)


def readable(source: Spec[Any], records: Iterator[Any]) -> Iterator[Any]:
    """The records of a source, whose errors while reading name it."""
    try:
        yield from records
    except OSError as error:
        raise UserError(
            f"source {source.name}: can't be read: {error}",
            remedy=f"Check its options: {json.dumps(source.dump(), ensure_ascii=False)}",
            code="source-unreadable",
        ) from error


def empty(source: Spec[Any]) -> UserError:
    """The error for a source without a single record."""
    return UserError(
        f"source {source.name} yielded no records",
        remedy=f"Check its options: {json.dumps(source.dump(), ensure_ascii=False)}",
        code="corpus-empty",
    )
