"""Typed records as lines of JSON, and documents split by hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from corelm.files import writing
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
