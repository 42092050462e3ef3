"""Sources of files, cleaners and templates that are wrong about where things are from, or about what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from corelm.conformance.bugs.data import Squeezer, Turns
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.records import Record, RecordName, Text
from corelm.kinds.source import Source


@reference
class RowsOfJson(Source):
    """A text per line of JSON."""

    class Config(ComponentConfig):
        """Options."""

        path: str = Field(description="The file.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.path = Path(config.path)

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """Text."""
        return "text"

    def lines(self) -> Iterable[bytes]:
        """Of the file."""
        with self.path.open("rb") as file:
            yield from file

    def records(self, start: int = 0) -> Iterator[Record]:
        """From a position on."""
        for number, line in enumerate(self.lines()):
            if number < start:
                continue
            try:
                yield Text(self.text(line), f"{self.place()}:{number + 1}")
            except ValueError as error:
                self.broken(number, error)

    def text(self, line: bytes) -> str:
        """Of a line."""
        return str(json.loads(line.decode())["text"])

    def place(self) -> str:
        """What names begin with."""
        return self.path.name

    def broken(self, number: int, error: ValueError) -> None:
        """Refuse."""
        raise UserError(f"{self.path}:{number + 1}: {error}") from error

    def fingerprint(self) -> str:
        """Of name and content."""
        return hashlib.sha256(self.path.name.encode() + self.path.read_bytes()).hexdigest()


@plant("fingerprint_follows_the_data", "a digest of name and size")
class NameAndSize(RowsOfJson):
    """A corrected letter is not seen."""

    def fingerprint(self) -> str:
        return f"{self.path.name} {self.path.stat().st_size}"


@plant("place_does_not_matter", "names are absolute paths")
class AbsoluteNames(RowsOfJson):
    """Other ones on another machine."""

    def place(self) -> str:
        return str(self.path)


@plant("damage_is_named", "lines that can't be read are passed over")
class PassesOver(RowsOfJson):
    """A short epoch, in silence."""

    def broken(self, number: int, error: ValueError) -> None:
        pass


@plant("damage_is_named", "the error is the parser's, which knows no file")
class SaysNoFile(RowsOfJson):
    """Character 1, of what?"""

    def broken(self, number: int, error: ValueError) -> None:
        raise UserError(str(error)) from error


@plant("it_streams", "all lines at once")
class ReadsAllLines(RowsOfJson):
    """As large as the file."""

    def lines(self) -> Iterable[bytes]:
        return self.path.read_bytes().splitlines()


@plant("names_decide_nothing", "duplicates are equal records, and no two have one name")
class ComparesRecords(Squeezer):
    """Drops nothing, in practice."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        seen: set[Text] = set()
        for document in documents:
            self.report.seen += 1
            if document in seen:
                self.note("duplicate", document)
                continue
            seen.add(document)
            self.report.kept += 1
            yield document


@reference
class TurnsAsJinja(Turns):
    """The same turns, as a chat template too."""

    def as_jinja(self) -> str | None:
        """Headed by the end of text."""
        return self.opening() + "{% if add_generation_prompt %}{{ '<|endoftext|>assistant\\n' }}{% endif %}"

    def opening(self) -> str:
        """All turns."""
        turn = "'<|endoftext|>' + message['role'] + '\\n' + message['content'] + '<|endoftext|>'"
        return "{% for message in messages %}{{ " + turn + " }}{% endfor %}"


@plant("exported_equals_rendered", "the layout strips contents, as many chat templates do")
class StripsInJinja(TurnsAsJinja):
    """Another text than was taught."""

    def opening(self) -> str:
        return super().opening().replace("message['content']", "message['content'].strip()")


@plant("exported_equals_rendered", "the prompt is never asked for")
class NoPromptInJinja(TurnsAsJinja):
    """Generation goes on in the user's name."""

    def as_jinja(self) -> str | None:
        return self.opening()
