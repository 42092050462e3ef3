"""Sources of files, cleaners and templates that are wrong about where things are from, or about what they say."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from corelm.conformance.bugs.data import Squeezer, Turns
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.component import ComponentConfig
from corelm.kinds.records import Record, Text
from corelm.kinds.source import Source


@reference
class RowsOfJson(Source):
    """A text per line of JSON, in the files of a folder."""

    class Config(ComponentConfig):
        """Options."""

        path: str = Field(description="The folder.")
        broken: Literal["refuse", "skip"] = Field("refuse", description="What becomes of broken lines.")
        longest: int = Field(10**8, gt=0, description="Most bytes of a line.")

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two files, the last line without a line break."""
        rows = [json.dumps({"text": text}) for text in texts]
        half = len(rows) // 2
        (folder / "0.jsonl").write_text("".join(f"{row}\n" for row in rows[:half]), encoding="utf-8")
        (folder / "1.jsonl").write_text("\n".join(rows[half:]), encoding="utf-8")
        return {"path": str(folder)}

    def files(self) -> list[Path]:
        """In order."""
        return sorted(Path(self.config.path).iterdir())

    def lines(self, file: Path) -> Iterable[bytes]:
        """Of a file."""
        with file.open("rb") as stream:
            while line := stream.readline(self.config.longest + 1):
                yield line

    def records(self, start: int = 0) -> Iterator[Record]:
        """From a position on."""
        return itertools.islice(self.all(), start, None)

    def all(self) -> Iterator[Record]:
        """All of them."""
        for file in self.files():
            for number, line in enumerate(self.lines(file), start=1):
                try:
                    if len(line) > self.config.longest:
                        raise ValueError("the line is too long")
                    yield Text(self.text(line), f"{self.place(file)}:{number}")
                except ValueError as error:
                    self.broken(file, number, error)

    def text(self, line: bytes) -> str:
        """Of a line."""
        return str(json.loads(line.decode())["text"])

    def place(self, file: Path) -> str:
        """What names begin with."""
        return file.name

    def broken(self, file: Path, number: int, error: ValueError) -> None:
        """Refuse, or count."""
        if self.config.broken == "refuse":
            raise UserError(f"{file}:{number}: {error}") from error
        self.report.leave_out("broken", f"{file.name}:{number}")

    def fingerprint(self) -> str:
        """Of names and contents."""
        return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in self.files())).hexdigest()


@plant("fingerprint_follows_the_data", "a digest of name and size")
class NameAndSize(RowsOfJson):
    """A corrected letter is not seen."""

    def fingerprint(self) -> str:
        return " ".join(f"{file.name} {file.stat().st_size}" for file in self.files())


@plant("place_does_not_matter", "names are absolute paths")
class AbsoluteNames(RowsOfJson):
    """Other ones on another machine."""

    def place(self, file: Path) -> str:
        return str(file)


@plant("memory_does_not_grow", "records are kept, perhaps somebody asks again")
class KeepsEveryRecord(RowsOfJson):
    """The whole corpus in memory."""

    def all(self) -> Iterator[Record]:
        kept = []
        for record in super().all():
            kept.append(record)
            yield record


@plant("damage_is_named", "lines that can't be read are passed over")
class PassesOver(RowsOfJson):
    """A short epoch, in silence."""

    def broken(self, file: Path, number: int, error: ValueError) -> None:
        pass


@plant("damage_is_named", "the error is the parser's, which knows no file")
class SaysNoFile(RowsOfJson):
    """Character 1, of what?"""

    def broken(self, file: Path, number: int, error: ValueError) -> None:
        raise UserError(str(error)) from error


@plant("skipping_is_counted", "what is skipped is skipped, and nobody hears of it")
class SkipsInSilence(RowsOfJson):
    """A corpus that is smaller than anybody knows."""

    def broken(self, file: Path, number: int, error: ValueError) -> None:
        if self.config.broken == "refuse":
            super().broken(file, number, error)


@plant("skipping_is_counted", "counted, but where it was isn't said")
class CountsWithoutPlace(RowsOfJson):
    """One of ten thousand files has a broken line."""

    def broken(self, file: Path, number: int, error: ValueError) -> None:
        if self.config.broken == "refuse":
            super().broken(file, number, error)
        self.report.leave_out("broken", f"line {number}")


@plant("it_streams", "all lines at once")
class ReadsAllLines(RowsOfJson):
    """As large as the file."""

    def lines(self, file: Path) -> Iterable[bytes]:
        return file.read_bytes().splitlines()


@plant("everything_comes", "a line is taken when its line break has come, and the last one has none")
class LosesTheLastLine(RowsOfJson):
    """One document per file."""

    def lines(self, file: Path) -> Iterable[bytes]:
        return (line for line in super().lines(file) if line.endswith(b"\n"))


@plant("everything_comes", "the position of the first file is kept in the second one")
class OneFileAlone(RowsOfJson):
    """A generator that is exhausted."""

    def files(self) -> list[Path]:
        return super().files()[:1]


@plant("resumes_by_position", "a position at the border of two files begins with the last record of the first one")
class RepeatsAtTheBorder(RowsOfJson):
    """Doubled, at one position of thousands."""

    def records(self, start: int = 0) -> Iterator[Record]:
        first = sum(1 for _ in self.lines(self.files()[0]))
        return super().records(start - 1 if start == first else start)


@plant("longest_is_a_bound", "the line is measured when it has been read")
class MeasuresTooLate(RowsOfJson):
    """A gigabyte in memory, and then a message about it."""

    def lines(self, file: Path) -> Iterable[bytes]:
        with file.open("rb") as stream:
            yield from stream


@plant("longest_is_a_bound", "the option is accepted and never looked at")
class TakesAnyLength(RowsOfJson):
    """No bound."""

    def all(self) -> Iterator[Record]:
        for file in self.files():
            for number, line in enumerate(file.open("rb"), start=1):
                try:
                    yield Text(self.text(line), f"{self.place(file)}:{number}")
                except ValueError as error:
                    self.broken(file, number, error)


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
