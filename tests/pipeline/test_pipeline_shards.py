"""Shards of tokens: they hold what was put in, are named by it, and say so when they are damaged."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from corelm.errors import UserError
from corelm.files import sha256
from corelm.kinds import Spec, Tokens, token_store
from corelm.pipeline import shards
from corelm.pipeline.tokens import DiskTokens, write_tokens

texts = st.text(st.characters(codec=None, categories=None), max_size=6)


@st.composite
def documents(draw, *, plain=False, smallest=0):
    """Documents of any length and name, some with marks, groups or classes."""
    found = []
    for _ in range(draw(st.integers(smallest, 9))):
        ids = np.array(draw(st.lists(st.integers(0, 65_535), max_size=7)), dtype=np.int64)
        marks = draw(st.none() | st.just(np.array([bool(i % 2) for i in ids.tolist()], dtype=bool)))
        more = {} if plain else {"group": draw(st.sampled_from([-1, 0, 7])), "label": draw(st.sampled_from([-1, 2]))}
        found.append(Tokens(ids, marks, draw(texts), **more))
    return found


def plain(document: Tokens):
    marks = None if document.learn is None else document.learn.tolist()
    return document.ids.tolist(), marks, document.name, document.group, document.label


def small_shards(patch, tokens=5, documents=3):
    patch.setattr(shards, "SHARD_TOKENS", tokens)
    patch.setattr(shards, "SHARD_DOCUMENTS", documents)


@settings(deadline=None)
@given(store=documents(), vocabulary=st.sampled_from([65_536, 65_537]))
def test_what_is_read_is_what_was_written_whole_and_in_part(tmp_path_factory, store, vocabulary):
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        found = write_tokens(tmp_path_factory.mktemp("store") / "tokens", store, vocabulary)
    assert [plain(found[index]) for index in range(len(found))] == [plain(document) for document in store]
    assert found.tokens == sum(len(document.ids) for document in store)
    listed, indices = token_store(store), np.arange(len(store))[::-1].copy()
    for name in ("lengths", "last", "groups", "labels"):
        assert np.array_equal(getattr(found.outline(indices), name), getattr(listed.outline(indices), name))
    assert found.names(indices) == listed.names(indices)
    lengths = listed.outline(indices).lengths
    read = [s.read(indices, np.minimum(1, lengths), lengths) for s in (found, listed)]
    for (ids, marks), (expected, learn) in zip(*read, strict=True):
        assert ids.tolist() == expected.tolist()
        assert (marks is None) == (learn is None) and (marks is None or marks.tolist() == learn.tolist())


@settings(deadline=None, max_examples=15)
@given(store=documents(plain=True, smallest=1), seed=st.integers(0, 99))
@pytest.mark.parametrize("packer", ["blocks", "best-fit", "padded"])
def test_packers_make_the_same_batches_from_disk_as_from_memory(tmp_path_factory, packer, store, seed):
    store = [*store, Tokens(np.array([1, 2, 3]), name="last")]
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        disk = write_tokens(tmp_path_factory.mktemp("store") / "tokens", store, 65_536)
    part = Spec.read("packer", packer).build()
    how = {"batch": 2, "time": 5, "seed": seed, "end_of_text": 0, "epochs": 2}
    for one, other in itertools.zip_longest(part.stream(disk, **how), part.stream(store, **how)):
        assert one.names == other.names
        for name in ("ids", "targets", "documents", "valid"):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None) and (a is None or a.equal(b)), name


def store_of(folder, count=10):
    return write_tokens(folder, [Tokens(np.arange(n, n + 4), name=f"doc{n}") for n in range(count)], 1000)


def test_a_shard_is_named_by_the_digest_of_what_it_holds_and_any_reader_of_its_format_reads_it(tmp_path, monkeypatch):
    small_shards(monkeypatch, tokens=8, documents=100)
    store_of(tmp_path / "a")
    store_of(tmp_path / "b")
    files = sorted((tmp_path / "a").glob("*.safetensors"))
    assert len(files) == 5 and all(sha256(file) == file.stem for file in files)
    assert [file.name for file in files] == sorted(file.name for file in (tmp_path / "b").glob("*.safetensors"))
    arrays = load_file(files[0])
    assert arrays["ids"].dtype == np.uint16 and arrays["offsets"].tolist() == [0, 4, 8]
    assert not list((tmp_path / "a").glob(".*"))


def test_a_shard_holds_no_more_than_it_should(tmp_path, monkeypatch):
    small_shards(monkeypatch, tokens=8, documents=3)
    lengths = [1, 1, 1, 1, 7, 3, 30, 1]
    write_tokens(tmp_path / "a", [Tokens(np.arange(length)) for length in lengths], 1000)
    listed = json.loads((tmp_path / "a" / "tokens.json").read_text())["shards"]
    assert [(entry["documents"], entry["tokens"]) for entry in listed] == [(3, 3), (2, 8), (2, 33), (1, 1)]


def damaged(folder, how):
    file = sorted(folder.glob("*.safetensors"))[0]
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "cut off":
        file.write_bytes(content[:-1])
    elif how == "longer":
        file.write_bytes(content + b"\0")
    else:
        at = 20 if how == "another header" else len(content) - 3
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    return file


@pytest.mark.parametrize("how", ["missing", "cut off", "longer", "another header", "another byte"])
def test_damage_is_found_and_named_before_a_token_is_read(tmp_path, how):
    store_of(tmp_path / "a")
    file = damaged(tmp_path / "a", how)
    with pytest.raises(UserError, match=str(file)) as caught:
        DiskTokens(tmp_path / "a")[0]
    assert caught.value.code == "tokens-damaged" and "made again" in caught.value.remedy


@pytest.mark.parametrize("content", ["{", "[]", '{"documents": 3}', '{"shards": [{"digest": "a"}]}'])
def test_a_list_that_is_none_is_named(tmp_path, content):
    store_of(tmp_path / "a")
    (tmp_path / "a" / "tokens.json").write_text(content)
    with pytest.raises(UserError, match=r"tokens\.json"):
        DiskTokens(tmp_path / "a")


def test_more_shards_than_a_process_may_open_files(tmp_path, monkeypatch):
    import resource

    small_shards(monkeypatch, tokens=1)
    store = store_of(tmp_path / "a", 160)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(120, soft), hard))
    try:
        assert [int(store[n].ids[0]) for n in range(160)] == list(range(160))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_that_is_not_there_is_an_error(tmp_path):
    store = store_of(tmp_path / "a")
    for index in (-1, 10):
        with pytest.raises(IndexError):
            store[index]
