"""The packer blocks: full rows, cut wherever they end, mixed within a window."""

import itertools

import numpy as np
from corelm_data.shuffling import Shuffle
from hypothesis import given
from hypothesis import strategies as st
from packing import END, blocks, ended, many, rows, shapes, stores

from corelm.kinds import Tokens


def flat(batches):
    """All rows as plain data, in order."""
    return [
        (tuple(ids), tuple(targets), tuple(documents))
        for batch in batches
        for ids, targets, documents in zip(
            batch.ids.tolist(), batch.targets.tolist(), batch.documents.tolist(), strict=True
        )
    ]


@given(stores(), shapes, st.integers(2, 20), st.integers(1, 3))
def test_mixed_rows_are_the_same_rows_in_another_order(store, shape, shuffle, epochs):
    plain, mixed = flat(blocks(store, epochs=epochs, **shape)), flat(blocks(store, shuffle, epochs=epochs, **shape))
    assert sorted(plain) == sorted(mixed)
    window = -(-shuffle // shape["batch"]) * shape["batch"]
    tokens = sum(len(ended(document, always=True)[0]) for document in store if len(document.ids))
    ends = [-(-epoch * tokens // shape["time"]) for epoch in range(epochs + 1)]
    for begins, stop in itertools.pairwise(ends):
        for at in range(begins, stop, window):
            here = slice(at, min(at + window, stop))
            assert sorted(plain[here]) == sorted(mixed[here]), "a window ends with its epoch"


@given(stores(), shapes, st.integers(2, 20), st.integers(0, 12), st.integers(1, 3))
def test_mixed_rows_go_on_from_any_batch_and_are_shared_by_ranks(store, shape, shuffle, taken, world):
    whole = list(blocks(store, shuffle, epochs=2, **shape))
    stream = blocks(store, shuffle, epochs=2, **shape)
    for _ in range(min(taken, len(whole))):
        next(stream)
    fresh = blocks(store, shuffle, epochs=2, **shape)
    fresh.load_state_dict(stream.state_dict())
    assert flat(fresh) == flat(whole[min(taken, len(whole)) :])
    ranks = [list(blocks(store, shuffle, epochs=2, rank=r, world=world, **shape)) for r in range(world)]
    assert [flat(rank) for rank in ranks] == [flat(whole[r::world]) for r in range(world)]


def test_a_batch_holds_rows_of_many_documents():
    store = [Tokens(np.full(100, number), name=str(number)) for number in range(1, 21)]
    first = next(blocks(store, 200, batch=10, time=10, seed=0))
    assert len({int(row[0]) for row in first.ids}) > 5


@many
@given(store=stores(), shape=shapes, epochs=st.integers(1, 3))
def test_blocks_hold_the_documents_one_after_the_other_in_full_rows(store, shape, epochs):
    batches = list(blocks(store, epochs=epochs, **shape))
    tokens = [token for ids, _, _ in rows(batches) for token in ids]
    filled = [document for document in store if len(document.ids)]
    assert len(tokens) == epochs * sum(len(ended(document, always=True)[0]) for document in filled)
    for epoch in range(epochs):
        order = Shuffle(len(store), shape["seed"], epoch).span(0, len(store))
        expected = [token for index in order for token in ended(store[index], always=True)[0]]
        assert tokens[: len(expected)] == expected
        tokens = tokens[len(expected) :]
    assert tokens == []
    assert all(batch.ids.shape == (shape["batch"], shape["time"]) for batch in batches[:-1])
    assert all(batch.valid is None for batch in batches[:-1])
    last = batches[-1].valid
    assert batches[-1].ids.shape[1] == shape["time"]
    assert last is None or last[:-1].all()


@many
@given(store=stores(), shape=shapes)
def test_documents_in_a_block_are_numbered_from_nought_at_each_row_and_change_with_the_document(store, shape):
    owner = {
        token: number for number, document in enumerate(store) for token in document.ids.tolist() if token != END
    }
    for ids, _, numbers in rows(blocks(store, epochs=2, **shape)):
        assert numbers[0] == 0
        for (a, b), (x, y) in zip(itertools.pairwise(ids), itertools.pairwise(numbers), strict=True):
            assert y == x + (a == END)
            if END not in (a, b):
                assert owner[a] == owner[b]
    for batch in blocks(store, epochs=1, **shape):
        if batch.valid is not None:
            last = batch.documents[-1]
            pad = ~batch.valid[-1]
            assert not set(last[pad].tolist()) & set(last[~pad].tolist())
        assert len(batch.names) == len(batch.ids)
