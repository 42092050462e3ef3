"""Records out of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow
from pyarrow import parquet
from pydantic import Field

from corelm.kinds import Count, Record
from corelm_data.columns import TableConfig, made_of, needed, usual
from corelm_data.reading import Broken, FilesConfig, FileSource, Row, SourceFile, broken_off

BATCH_BYTES: Final = 4 << 20
"""About so many bytes of a row group are turned into rows at once."""

PAGE_BUFFER: Final = 1 << 20
"""Bytes of a column that are read from the file at once, in place of the whole column."""


class Parquet(FileSource):
    """Records from Parquet files.

    ``columns`` says which of their values make a record, and no other column is read. Row groups stream one after the
    other, each in batches; those before a position are not read at all. Files may have other columns besides, in other
    orders; one that lacks a column that the record needs is broken.

    Memory: a page of each column, unpacked, as large as the file's writer made it, and no row of more than ``longest``.
    """

    class Config(TableConfig, FilesConfig):
        """Which files, and what their columns mean."""

        longest: Count = Field(64_000_000, gt=0, description="Most bytes of a row; a longer one is broken.")

    called: ClassVar[str] = "parquet"
    endings: ClassVar[frozenset[str]] = frozenset({".parquet"})

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """Rows of a file, whose groups are read when the first of their rows is asked for.

        Raises:
            Broken: it is no Parquet file, or has another schema.
        """
        try:
            table = parquet.ParquetFile(file.path, buffer_size=PAGE_BUFFER, pre_buffer=False)
        except pyarrow.ArrowException as error:
            raise _damaged(error) from error
        with table:
            columns = self._columns(table)
            row = 0
            for number in range(table.num_row_groups):
                group = _Group(table, number, columns, self.config.longest)
                for index in range(group.count):
                    yield Row(f", row {row}", partial(self._record, group, index))
                    row += 1

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two files of groups of two rows."""
        half = len(texts) // 2
        for number, part in enumerate((texts[:half], texts[half:])):
            table = pyarrow.table({"text": list(part), "length": [len(text) for text in part]})
            parquet.write_table(table, folder / f"{number}.parquet", row_group_size=2)
        return {"paths": [str(folder)]}

    def _columns(self, table: Any) -> list[str]:
        there: list[str] = table.schema_arrow.names
        lacking = [column for column in needed(self.config) if column not in there]
        found = [column for column in usual(self.config) if column in there]
        if lacking or not found:
            wanted = ", ".join(lacking or usual(self.config))
            raise Broken(
                f"another schema: it lacks {wanted}; its columns are {', '.join(there) or 'none'}",
                remedy=f"Set columns so that they make a {self.config.yields}, or leave the file out.",
                code="other-schema",
            )
        return found

    def _record(self, group: _Group, index: int, name: str) -> Record:
        return made_of(group.row(index), self.config, name)


class _Group:
    """A row group, read in batches as its rows are asked for, in order."""

    def __init__(self, table: Any, number: int, columns: list[str], longest: int) -> None:
        self._table, self._number, self._columns, self._longest = table, number, columns, longest
        metadata = table.metadata.row_group(number)
        self.count: int = metadata.num_rows
        self._size = max(1, min(self.count, self.count * BATCH_BYTES // max(1, metadata.total_byte_size)))
        self._batches: Iterator[Any] | None = None
        self._batch: Any = None
        self._rows: list[dict[str, Any]] = []
        self._first = self._after = 0

    def row(self, index: int) -> dict[str, Any]:
        """Values by column.

        Raises:
            Broken: what follows in the file can't be read; or the row is too long.
        """
        try:
            if self._batches is None:
                self._batches = self._table.iter_batches(self._size, [self._number], self._columns)
            # Batches before the one that is asked for are only counted.
            while index >= self._after:
                self._batch, self._rows = next(self._batches), []
                self._first, self._after = self._after, self._after + self._batch.num_rows
            if self._batch.nbytes > self._longest:
                return self._alone(self._batch.slice(index - self._first, 1))
            self._rows = self._rows or self._batch.to_pylist()
        except (pyarrow.ArrowException, OSError, StopIteration, UnicodeDecodeError) as error:
            raise _damaged(error) from error
        return self._rows[index - self._first]

    def _alone(self, row: Any) -> dict[str, Any]:
        """A row by itself, of a batch in which one may be too long."""
        if row.nbytes > self._longest:
            raise Broken(f"a row of more than {self._longest:,} bytes", remedy="Raise longest.", code="row-too-long")
        values: dict[str, Any] = row.to_pylist()[0]
        return values


def _damaged(error: Exception) -> Broken:
    return broken_off((str(error).strip().splitlines() or ["rows are lacking"])[0])
