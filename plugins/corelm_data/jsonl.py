"""Records out of JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from corelm.kinds import Count, LocalPath, Record
from corelm_data.columns import TableConfig, made_of
from corelm_data.compressed import opened
from corelm_data.lines import lines, not_utf8, too_long
from corelm_data.reading import Broken, FileSource, ReadingConfig, Row, SourceFile


class JsonLines(FileSource):
    """Records from files of JSON lines.

    One JSON object per line (lines of nothing but white space are passed over), compressed if the name ends in
    ``.gz``, ``.bz2``, ``.xz`` or ``.zst``; ``columns`` says which of its values make a record. Streams, whatever the
    file holds: a line is at most ``longest``. A file whose name ends in ``.json`` holds one JSON list of such objects
    instead and is read into memory whole, so it is at most ``longest`` too; rows are then counted instead of lines.
    (``.json.gz`` is JSON lines again: so C4 and its kin are published.)
    """

    class Config(TableConfig, ReadingConfig):
        """Which file, and what its columns mean."""

        path: LocalPath = Field(
            description="A file: .jsonl, perhaps compressed (.jsonl.gz, .jsonl.zst), or .json with one list; a folder of "
            "such files, or a glob."
        )
        longest: Count = Field(
            64_000_000, gt=0, description="Most bytes of a line, or of a .json file; what is longer is broken."
        )

    called: ClassVar[str] = "jsonl"
    endings: ClassVar[frozenset[str]] = frozenset({".jsonl", ".ndjson", ".json"})

    def entries(self) -> list[str]:
        """The one path."""
        return [self.config.path]

    def rows(self, file: SourceFile) -> Iterator[Row]:
        """Lines, or members of the list.

        Raises:
            Broken: the file breaks off, or is no JSON list.
        """
        if file.path.suffix.lower() == ".json":
            for number, row in enumerate(_listed(file.path, self.config.longest), start=1):
                yield Row(f": row {number}", partial(self._record, row))
            return
        with opened(file.path) as stream:
            for number, line in lines(stream, self.config.longest):
                if line is None or line.strip():
                    yield Row(f":{number}", partial(self._parsed, line))

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Two files, the last line without a line break."""
        rows = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        half = len(rows) // 2
        (folder / "0.jsonl").write_text("".join(f"{row}\n" for row in rows[:half]), encoding="utf-8")
        (folder / "1.jsonl").write_text("\n".join(rows[half:]), encoding="utf-8")
        return {"path": str(folder)}

    def _parsed(self, line: bytes | None, name: str) -> Record:
        if line is None:
            raise too_long(self.config.longest)
        try:
            row = json.loads(line.decode("utf-8").rstrip())
        except UnicodeDecodeError as error:
            raise not_utf8(error, " of the line") from error
        except (json.JSONDecodeError, RecursionError) as error:
            place = f"column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise Broken(_why(error, place), remedy="Mend the line.", code="broken-line") from error
        return self._record(row, name)

    def _record(self, row: Any, name: str) -> Record:
        return made_of(row, self.config, name, code="broken-line")


def _listed(path: Path, longest: int) -> list[Any]:
    try:
        with opened(path) as file:
            content = file.read(longest + 1)
        if len(content) > longest:
            raise Broken(
                f"one list of more than {longest:,} bytes, which is held in memory whole",
                remedy="Write it as lines, which stream (jq -c '.[]' FILE.json > FILE.jsonl), or raise longest.",
                code="file-too-long",
            )
        rows = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(error) from error
    except (json.JSONDecodeError, RecursionError) as error:
        place = f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Broken(
            _why(error, place),
            remedy="A .json file holds one list of objects; name a file of JSON lines .jsonl.",
            code="broken-file",
        ) from error
    if not isinstance(rows, list):
        raise Broken(
            f"expected one list of objects, found {type(rows).__name__}",
            remedy="Name a file of JSON lines .jsonl.",
            code="broken-file",
        )
    return rows


def _why(error: json.JSONDecodeError | RecursionError, place: str) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error.msg} at {place}"
