"""Records read by the datasets library."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import Field, model_validator

from corelm.errors import UserError
from corelm.kinds import LocalPath, Record
from corelm_data import digests
from corelm_data.columns import TableConfig, made_of
from corelm_data.reading import Broken, CarefulSource, ReadingConfig

SHOWN: Final = 300
"""Characters of the library's messages that are shown."""
_FORMATS: Final = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


class HuggingFaceData(CarefulSource):
    """Records read by the ``datasets`` library.

    Either ``path``, the name of a data set on the Hugging Face hub (fetched once, then from the library's cache), or
    ``files``, a Parquet, JSON or CSV file (may be gzipped) or a folder of them on this machine. Rows stream;
    ``columns`` says which of their values make a record. A file that the library can't read ends the reading with an
    error, also where broken records are skipped: what would follow is unknown.
    """

    class Config(TableConfig, ReadingConfig):
        """Which data set, and what its columns mean."""

        path: str | None = Field(None, min_length=1, description="Name on the hub, e.g. roneneldan/TinyStories.")
        files: LocalPath | None = Field(None, description="File or folder on this machine, instead of path.")
        name: str | None = Field(None, description="Configuration of a data set that has several.")
        split: str = Field(
            "train", min_length=1, description="Which split; a file on this machine is the split train."
        )
        revision: str | None = Field(None, description="Branch, tag or commit on the hub; a commit never changes.")

        @model_validator(mode="after")
        def _one_place(self) -> Self:
            if (self.path is None) == (self.files is None):
                raise ValueError("give either path (a name on the hub) or files (on this machine)")
            if self.files is not None and self.revision is not None:
                raise ValueError("revision is for data sets on the hub")
            return self

    called: ClassVar[str] = "hugging-face"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.named: str = config.path or Path(config.files).name

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: the data set can't be had or read; a row, named by its number, is no such record.
        """
        place = self.config.path or self.config.files
        named = self.named
        # Which rows are broken is known when records have been made of them: see FileSource.
        skipping = self.config.broken == "skip"
        passed = 0 if skipping else start
        for number, row in enumerate(self._rows(passed), start=passed):
            where = f"[{self.config.split}], row {number}"
            try:
                record = made_of(row, self.config, f"{self.called}: {named} {where}")
            except Broken as error:
                self.broken(error, f"{place} {where}", f"{named} {where}")
                continue
            passed += 1
            if passed > start:
                yield record

    def fingerprint(self) -> str:
        """Digest of the files on this machine, or name and revision on the hub."""
        if self.config.files is None:
            try:
                builder = _library().load_dataset_builder(**self._named())
            except Exception as error:
                raise self._failed(error) from error
            return f"{self.config.path}/{self.config.name}/{self.config.split}/{builder.hash}"
        path = self._local()
        if not path.is_dir():
            return digests.digest([(path.name, path)])
        # Hidden files, such as the notes that a download leaves with its time, are no data.
        names = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
        shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
        return digests.digest((name.as_posix(), path / name) for name in shown)

    @classmethod
    def example(cls, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        """A file of JSON lines."""
        rows = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
        (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
        return {"path": None, "files": str(folder / "rows.jsonl")}

    def _rows(self, start: int) -> Iterator[Any]:
        # Whatever the library raises here is about the data set, the network or the file: the user's to mend.
        try:
            rows = _library().load_dataset(**self._named(), split=self.config.split, streaming=True)
            yield from rows.skip(start) if start else rows
        except UserError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _named(self) -> dict[str, Any]:
        if self.config.files is None:
            return {"path": self.config.path, "name": self.config.name, "revision": self.config.revision}
        path = self._local()
        if path.is_dir():
            return {"path": str(path), "name": self.config.name}
        reader = next((_FORMATS[suffix] for suffix in reversed(path.suffixes) if suffix in _FORMATS), None)
        if reader is None:
            raise UserError(
                f"source {self.called}: {path}: not a file of a known format",
                remedy=f"Known endings: {', '.join(_FORMATS)}, each with or without .gz.",
                code="format-unknown",
            )
        return {"path": reader, "data_files": {"train": str(path)}}

    def _local(self) -> Path:
        path = Path(self.config.files)
        if not path.exists():
            raise UserError(
                f"source {self.called}: {path}: no such file or folder",
                remedy="A path in a recipe starts from the recipe's folder; a data set on the hub is named by path.",
                code="file-not-found",
            )
        return path

    def _failed(self, error: Exception) -> UserError:
        place = self.config.path or self.config.files
        cause = error.__cause__ or error
        said = " ".join(str(cause).split()) or "no message"
        shown = said if len(said) <= SHOWN else f"{said[: SHOWN - 1]}…"
        file = _file_of(error) or _file_of(cause)
        where = "" if file in ("", place) else f", file {file}"
        if self.config.files is None:
            branch = f" --revision {self.config.revision}" if self.config.revision else ""
            remedy = (
                "Check the name, the split and the network; HF_HOME says where fetched data are kept. Without a network: "
                f"`hf download {place} --repo-type dataset{branch} --local-dir FOLDER` elsewhere, then files: FOLDER."
            )
        else:
            remedy = (
                "Check name and split; are the files whole, and of one schema? The sources jsonl, parquet and csv say "
                "where a file is broken, and leave out what is, counted, where `broken: skip` asks them to."
            )
        return UserError(
            f"source {self.called}: {place} [{self.config.split}]{where}: {type(cause).__name__}: {shown}",
            remedy=remedy,
            code="dataset-unreadable",
        )


def _file_of(error: BaseException) -> str:
    """Which file a reader of the library was at; its errors don't say."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("datasets.packaged_modules"):
            file = trace.tb_frame.f_locals.get("file")
            found = file if isinstance(file, str) else found
        trace = trace.tb_next
    return found


def _library() -> Any:
    return importlib.import_module("datasets")
