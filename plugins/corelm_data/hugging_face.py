"""Records read by the datasets library."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, model_validator

from corelm.errors import UserError
from corelm.kinds import LocalPath, Record, RecordName, Source
from corelm_data.columns import RowError, TableConfig, record_of

_FORMATS: Final = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


class HuggingFaceData(Source):
    """Records read by the ``datasets`` library.

    Either ``path``, the name of a data set on the Hugging Face hub (fetched once, then from the library's cache), or
    ``files``, a Parquet, JSON or CSV file (may be gzipped) or a folder of them on this machine. Rows stream;
    ``columns`` says which of their values make a record.
    """

    class Config(TableConfig):
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

    @classmethod
    def yields(cls, config: Any) -> RecordName:
        """What ``yields`` says."""
        name: RecordName = config.yields
        return name

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: the data set can't be had or read; a row, named by its number, is no such record.
        """
        place = self.config.path or self.config.files
        called = self.config.path or Path(self.config.files).name
        for number, row in enumerate(self._rows(start), start=start):
            where = f"[{self.config.split}], row {number}"
            try:
                yield record_of(row, self.config, f"hugging-face: {called} {where}")
            except RowError as error:
                raise UserError(
                    f"source hugging-face: {place} {where}: {error}",
                    remedy=f"Set columns; a {self.config.yields} is expected.",
                    code="broken-row",
                ) from error

    def fingerprint(self) -> str:
        """Digest of the files on this machine, or name and revision on the hub."""
        if self.config.files is None:
            try:
                builder = _library().load_dataset_builder(**self._named())
            except Exception as error:
                raise self._failed(error) from error
            return f"{self.config.path}/{self.config.name}/{self.config.split}/{builder.hash}"
        path = self._local()
        total = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            total.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                while chunk := content.read(1 << 20):
                    total.update(chunk)
        return total.hexdigest()

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
                f"source hugging-face: {path}: not a file of a known format",
                remedy=f"Known endings: {', '.join(_FORMATS)}, each with or without .gz.",
                code="format-unknown",
            )
        return {"path": reader, "data_files": {"train": str(path)}}

    def _local(self) -> Path:
        path = Path(self.config.files)
        if not path.exists():
            raise UserError(
                f"source hugging-face: {path}: no such file or folder",
                remedy="A path in a recipe starts from the recipe's folder; a data set on the hub is named by path.",
                code="file-not-found",
            )
        return path

    def _failed(self, error: Exception) -> UserError:
        place = self.config.path or self.config.files
        cause = error.__cause__ or error
        first = (str(cause).strip().splitlines() or ["no message"])[0]
        return UserError(
            f"source hugging-face: {place} [{self.config.split}]: {type(cause).__name__}: {first}",
            remedy="Check the name, the split and the network; HF_HOME says where fetched data are kept.",
            code="dataset-unreadable",
        )


def _library() -> Any:
    return importlib.import_module("datasets")
