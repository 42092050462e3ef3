"""Sources as datasets of torch, and datasets of torch as sources.

For programs in Python: a recipe is data and names no objects, so neither is a registered part.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from corelm.errors import UserError
from corelm.kinds import Choice, Conversation, Labelled, Preference, Record, Source, Text
from corelm_data.columns import RowError, TableConfig, expected, record_of

_RECORDS = (Text, Conversation, Preference, Labelled, Choice)


class SourceDataset(IterableDataset[Record]):
    """The records of a source, for a DataLoader of torch.

    ``DataLoader(SourceDataset(source), batch_size=None, num_workers=4)`` yields them in the source's order;
    ``batch_size=32, collate_fn=list`` lists of them, in an order that depends on the number of workers. Each record
    comes once, however many workers there are: of ``world`` processes with ``w`` workers each, worker ``i`` of process
    ``rank`` takes every ``world · w``-th record from the ``rank · w + i``-th on. It reads over the others' records, so
    workers share the work that is done on records, not the reading.

    Args:
        source: whose records; each worker has a copy of its own.
        start: position of the first record; of all processes together.
        rank, world: this process and how many there are.
    """

    def __init__(self, source: Source, *, start: int = 0, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world or start < 0:
            raise ValueError(f"rank {rank} of {world}, start {start}")
        self.source, self.start, self.rank, self.world = source, start, rank, world

    def __iter__(self) -> Iterator[Record]:
        """This worker's records."""
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        first = self.rank * workers + number
        return itertools.islice(self.source.read(self.start), first, None, self.world * workers)


class DatasetSource(Source):
    """Records out of a dataset of torch, map-style or iterable.

    Its items may be records, texts, pairs of text and label, or rows of named values that ``config`` says how to read.
    A map-style dataset resumes by index, an iterable one by passing over what came before; it must yield the same items
    each time. The fingerprint is a digest of all records, unless ``version`` names the data.

    Args:
        dataset: of torch.
        config: how rows are read; by default a text in the column ``text``.
        name: heads the names of records.
        version: of the data; another one for other data.
    """

    Config: ClassVar[type[TableConfig]] = TableConfig

    def __init__(
        self, dataset: Dataset[Any], config: TableConfig | None = None, *, name: str = "dataset", version: str = ""
    ) -> None:
        super().__init__(config or TableConfig())
        self._dataset, self._name, self._version = dataset, name, version

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records from position ``start`` on.

        Raises:
            UserError: an item, named by its number, is no such record.
        """
        for number, item in enumerate(self._items(start), start=start):
            name = f"{self._name}: item {number}"
            try:
                yield self._record(item, name)
            except RowError as error:
                raise UserError(
                    f"{name}: {error}",
                    remedy=expected(self.config),
                    code="broken-row",
                ) from error

    def fingerprint(self) -> str:
        """The version, or a digest of all records."""
        if self._version:
            return f"{self._name}/{self._version}"
        total = hashlib.sha256()
        for record in self.records():
            total.update(f"{record!r}\n".encode("utf-8", "surrogatepass"))
        return total.hexdigest()

    def _items(self, start: int) -> Iterator[Any]:
        data: Any = self._dataset
        if isinstance(data, IterableDataset):
            return itertools.islice(iter(data), start, None)
        return (data[index] for index in range(start, len(data)))

    def _record(self, item: Any, name: str) -> Record:
        if isinstance(item, _RECORDS):
            if self._kind(item) != self.config.yields:
                raise RowError(f"expected a record of type {self.config.yields}, found {type(item).__name__}")
            return item
        if isinstance(item, str):
            item = {"text": item}
        elif isinstance(item, tuple) and self.config.yields == "labelled" and len(item) == 2:
            item = dict(zip(("text", "label"), item, strict=True))
        if isinstance(item, Mapping):
            # Numbers may be tensors of no dimensions.
            item = {key: value.item() if getattr(value, "ndim", None) == 0 else value for key, value in item.items()}
        return record_of(item, self.config, name)

    def _kind(self, record: Record) -> str:
        return type(record).__name__.lower()
