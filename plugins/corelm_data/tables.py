"""Records out of CSV and TSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from corelm.kinds import Count, Record
from corelm_data.columns import TableConfig, made_of
from corelm_data.compressed import opened, plain_suffix
from corelm_data.lines import lines, not_utf8, too_long
from corelm_data.reading import Broken, FilesConfig, FileSource, Row, SourceFile


class SeparatedValues(FileSource):
    """Records from files of comma- or tab-separated values (RFC 4180).

    Values may be quoted, and a quoted value may hold line breaks. ``columns`` says which of the values make a record;
    columns are named by the first row, or by ``header``. Every row has as many values as there are columns. Streams;
    rows of nothing are passed over.
    """

    class Config(TableConfig, FilesConfig):
        """Which files, how they are written, and what their columns mean."""

        delimiter: str | None = Field(
            None, min_length=1, max_length=1, description="Between values; by default a comma, in .tsv files a tab."
        )
        quote: str | None = Field(
            '"', min_length=1, max_length=1, description="Around values; null: nothing is quoted."
        )
        escape: str | None = Field(
            None,
            min_length=1,
            max_length=1,
            description="Before a quote that is meant; by default quotes are doubled.",
        )
        header: list[str] | None = Field(
            None, min_length=1, description="Names of the columns, where the first row is data already."
        )
        encoding: Literal["utf-8", "cp1252", "iso-8859-1"] = Field("utf-8", description="How the files are written.")
        longest: Count = Field(64_000_000, gt=0, description="Most bytes of a line, and most characters of a value.")

        @model_validator(mode="after")
        def _told_apart(self) -> Self:
            marks = [mark for mark in (self.delimiter, self.quote, self.escape) if mark is not None]
            if len(set(marks)) < len(marks) or {"\n", "\r"} & set(marks):
                raise ValueError("delimiter, quote and escape are different characters, and none is a line break")
            if self.header is not None and len(set(self.header)) < len(self.header):
                raise ValueError("header: a name comes twice")
            return self

    called: ClassVar[str] = "csv"
    endings: ClassVar[frozenset[str]] = frozenset({".csv", ".tsv"})

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """Rows of a file after its header.

        Raises:
            Broken: a quote that is not closed, a line that is too long or no text; where the next row begins is unknown
                then.
        """
        with opened(file.path) as stream:
            source = _Lines(stream, self.config.longest, self.config.encoding)
            reader = csv.reader(source, **self._dialect(file.path))
            header: list[str] | None = self.config.header
            while True:
                begun = source.number + 1
                values = self._next(reader, begun)
                if values is None:
                    return
                if not values:
                    continue
                if header is None:
                    header = _named(values)
                else:
                    yield Row(f":{begun}", partial(self._record, header, values))

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two files, the last row without a line break."""
        half = len(texts) // 2
        for number, part in enumerate((texts[:half], texts[half:])):
            written = io.StringIO(newline="")
            csv.writer(written).writerows([("number", "text"), *enumerate(part)])
            (folder / f"{number}.csv").write_bytes(written.getvalue().removesuffix("\r\n").encode())
        return {"paths": [str(folder)]}

    def _dialect(self, path: Path) -> dict[str, Any]:
        config = self.config
        return {
            "delimiter": config.delimiter or ("\t" if plain_suffix(path) == ".tsv" else ","),
            "quotechar": config.quote,
            "quoting": csv.QUOTE_MINIMAL if config.quote else csv.QUOTE_NONE,
            "escapechar": config.escape,
            "doublequote": config.escape is None,
            "strict": True,
        }

    def _next(self, reader: Any, begun: int) -> list[str] | None:
        # The longest value is a setting of the whole library, so it is put back before anybody else reads.
        before = csv.field_size_limit(self.config.longest)
        try:
            values: list[str] | None = next(reader, None)
        except csv.Error as error:
            raise Broken(
                f"line {begun}: {error}",
                remedy="Check delimiter, quote and escape; is a quote never closed?",
                code="broken-row",
            ) from error
        finally:
            csv.field_size_limit(before)
        return values

    def _record(self, header: list[str], values: list[str], name: str) -> Record:
        if len(values) != len(header):
            raise Broken(
                f"{len(values)} values for {len(header)} columns",
                remedy="Mend the row, or check delimiter and quote.",
                code="broken-row",
            )
        return made_of(dict(zip(header, values, strict=True)), self.config, name)


class _Lines:
    """Lines as text, counted."""

    def __init__(self, stream: io.BufferedReader, longest: int, encoding: str) -> None:
        self._lines, self._longest, self._encoding = lines(stream, longest), longest, encoding
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        self.number = number
        try:
            if line is None:
                raise too_long(self._longest)
            return line.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise _at(number, not_utf8(error, " of the line")) from error
        except Broken as error:
            raise _at(number, error) from error


def _at(number: int, error: Broken) -> Broken:
    return Broken(f"line {number}: {error}", remedy=error.remedy, code=error.code)


def _named(values: list[str]) -> list[str]:
    doubled = sorted({name for name in values if values.count(name) > 1})
    if doubled:
        raise Broken(
            f"line 1: two columns are named {doubled[0]!r}",
            remedy="Name the columns in header if the first row is data; else mend it.",
            code="broken-file",
        )
    return values
