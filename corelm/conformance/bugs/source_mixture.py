"""Mixtures that are wrong in one way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from corelm.conformance.bugs.data import Lines
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.records import Record, RecordName, Text
from corelm.kinds.source import Consumed, Source


@reference
class TwoFiles(Source):
    """Rows of two files by turns: two of the first, one of the second."""

    class Config(ComponentConfig):
        """Options."""

        path: str = Field(description="Folder with the files a and b.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.report.parts.update({"a": Consumed(), "b": Consumed()})

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """Text."""
        return "text"

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Each third text in b."""
        for name in "ab":
            rows = [text for number, text in enumerate(texts) if (number % 3 == 1) == (name == "b")]
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return {"path": str(folder)}

    def shares(self) -> Mapping[str, float]:
        """Two thirds and one."""
        return {"a": 2 / 3, "b": 1 / 3}

    def turn(self, number: int) -> str:
        """Whose turn it is."""
        return "b" if number % 3 == 1 else "a"

    def rows(self, name: str) -> Iterator[Record]:
        """Of a file."""
        with (Path(self.config.path) / name).open(encoding="utf-8") as file:
            try:
                for number, line in enumerate(file):
                    yield Text(json.loads(line), f"{name}:{number}")
            except ValueError as error:
                raise UserError(f"file {name}: {error}") from error

    def records(self, start: int = 0) -> Iterator[Record]:
        """From a position on."""
        return itertools.islice(self.all(start), start, None)

    def all(self, start: int) -> Iterator[Record]:
        """All of them, counted from a position on."""
        streams = {name: self.rows(name) for name in "ab"}
        for number in itertools.count():
            first = self.turn(number)
            for name in (first, "b" if first == "a" else "a"):
                record = next(streams[name], None)
                if record is not None:
                    break
            else:
                return
            if number >= start:
                self.report.parts[name].count(record)
            yield record

    def fingerprint(self) -> str:
        """Of what is in the files."""
        return "".join((Path(self.config.path) / name).read_text(encoding="utf-8") + "\0" for name in "ab")


@plant("shares_are_kept", "shares are kept in the first round alone: then the parts take turns one by one")
class Drifts(TwoFiles):
    """The longer it goes on, the less it is what was asked for."""

    def turn(self, number: int) -> str:
        return super().turn(number) if number < 6 else "ab"[number % 2]


@plant("shares_are_kept", "shares hold in the end, and the first part comes first as a whole")
class OneAfterTheOther(TwoFiles):
    """A curriculum, by mistake."""

    def turn(self, number: int) -> str:
        return "a" if number % 60 < 40 else "b"


@plant("what_came_is_counted", "each part's records are counted from the beginning, also where reading began later")
class CountsFromTheBeginning(TwoFiles):
    """A report of what was never read."""

    def all(self, start: int) -> Iterator[Record]:
        return super().all(0)


@plant("what_came_is_counted", "one record is read ahead, and counted when it is read")
class CountsAhead(Lines):
    """One more than came."""

    def read(self, start: int = 0) -> Iterator[Record]:
        held: Record | None = None
        for record in super().read(start):
            if held is not None:
                yield held
            held = record
        if held is not None:
            yield held


@plant("what_came_is_counted", "characters are bytes")
class CountsBytes(Lines):
    """A third more, in Greek."""

    lines = ("ἕν", "δύο", "τρία")

    def read(self, start: int = 0) -> Iterator[Record]:
        for record in self.records(start):
            assert isinstance(record, Text)
            self.report.count(replace(record, text=record.text.encode().decode("latin-1")))
            yield record
