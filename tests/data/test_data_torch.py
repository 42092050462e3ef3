"""Sources as datasets of torch, and the other way round."""

import json

import pytest
import torch
from corelm_data.columns import TableConfig
from corelm_data.jsonl import JsonLines
from corelm_data.torch_data import DatasetSource, SourceDataset
from reading import build
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from corelm.errors import UserError
from corelm.kinds import Conversation, Labelled, Message, Text


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": str(number)}) for number in range(23)), encoding="utf-8")
    return build(JsonLines, path=str(path))


def _numbers(records):
    return [int(record.text) for record in records]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_share_the_records_without_doubles_in_the_sources_order(workers, source):
    assert _numbers(DataLoader(SourceDataset(source), batch_size=None, num_workers=workers)) == list(range(23))


def test_batches_of_records(source):
    loader = DataLoader(SourceDataset(source, start=3), batch_size=4, collate_fn=list)
    assert [_numbers(batch) for batch in loader][0] == [3, 4, 5, 6]
    assert sum(len(batch) for batch in loader) == 20


@pytest.mark.parametrize("world", [1, 2, 5, 30])
@pytest.mark.parametrize("workers", [1, 2])
def test_processes_and_their_workers_partition_the_records(world, workers, source, monkeypatch):
    from types import SimpleNamespace

    found = []
    for rank in range(world):
        for worker in range(workers):
            info = SimpleNamespace(num_workers=workers, id=worker)
            monkeypatch.setattr("corelm_data.torch_data.get_worker_info", lambda info=info: info)
            found += _numbers(SourceDataset(source, start=2, rank=rank, world=world))
    assert sorted(found) == list(range(2, 23))


def test_a_rank_that_is_none_is_refused(source):
    with pytest.raises(ValueError, match="rank 2 of 2"):
        SourceDataset(source, rank=2, world=2)


class _Map(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class _Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


@pytest.mark.parametrize("kind", [_Map, _Stream])
@pytest.mark.parametrize(
    ("items", "options", "expected"),
    [
        (["a", "b"], {}, [Text("a", "dataset: item 0"), Text("b", "dataset: item 1")]),
        ([{"body": "a"}], {"columns": {"text": "body"}}, [Text("a", "dataset: item 0")]),
        ([("a", 1)], {"yields": "labelled"}, [Labelled("a", 1, "dataset: item 0")]),
        ([{"text": "a", "label": torch.tensor(2)}], {"yields": "labelled"}, [Labelled("a", 2, "dataset: item 0")]),
        ([Text("a", "own name")], {}, [Text("a", "own name")]),
        (
            [{"prompt": "q", "response": "a"}],
            {"yields": "conversation"},
            [Conversation((Message("user", "q"), Message("assistant", "a")), "dataset: item 0")],
        ),
    ],
)
def test_items_of_every_shape_become_records(kind, items, options, expected):
    source = DatasetSource(kind(items), TableConfig(**options))
    assert list(source.records()) == expected
    assert list(source.records(1)) == expected[1:]
    assert DatasetSource.yields(source.config) == options.get("yields", "text")


def test_items_that_are_no_records_are_named():
    with pytest.raises(UserError, match=r"mine: item 1: expected an object with named values, found int 3"):
        list(DatasetSource(_Map(["a", 3]), name="mine").records())
    with pytest.raises(UserError, match=r"dataset: item 0: expected a record of type labelled, found Text"):
        list(DatasetSource(_Map([Text("a")]), TableConfig(yields="labelled")).records())
    with pytest.raises(UserError, match=r"dataset: item 0: expected an object"):
        list(DatasetSource(TensorDataset(torch.zeros(2))).records())


def test_the_fingerprint_is_that_of_the_records_or_a_version():
    one, other = DatasetSource(_Map(["a", "b"])), DatasetSource(_Map(["a", "c"]))
    assert one.fingerprint() == DatasetSource(_Stream(["a", "b"])).fingerprint() != other.fingerprint()
    assert DatasetSource(_Map(["a"]), name="mine", version="2").fingerprint() == "mine/2"
