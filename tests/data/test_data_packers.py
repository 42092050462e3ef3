"""Every packer: no token lost, no target across documents, resumable and divisible."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import END, blocks, ended, fitting, many, padded, rows, same, shapes, stores

from corelm.errors import UserError
from corelm.kinds import IGNORE, Tokens, token_store

MAKES = {
    "blocks": blocks,
    "best-fit": fitting,
    "padded": padded,
    "padded-left": lambda store, **more: padded(store, cut="left", **more),
    "padded-filled": lambda store, **more: padded(store, best_fit=True, **more),
}
every = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


@every
@many
@given(store=stores(), shape=shapes, epochs=st.integers(1, 3))
def test_targets_are_the_next_tokens_of_the_same_document_all_of_them_and_no_other(make, store, shape, epochs):
    # Nothing is cut here, so that every pair must be there; cutting has its own test.
    shape = shape if make in (blocks, fitting) else {**shape, "time": 21}
    expected = Counter()
    for document in store:
        ids, learn = ended(document, always=make in (blocks, fitting))
        expected.update(pair for pair, learnt in zip(itertools.pairwise(ids), learn[1:], strict=False) if learnt)
    found = Counter()
    for ids, targets, _ in rows(make(store, epochs=epochs, **shape)):
        found.update(pair for pair in zip(ids, targets, strict=True) if pair[1] != IGNORE)
    assert found == Counter({pair: count * epochs for pair, count in expected.items()})


@every
@many
@given(store=stores(), shape=shapes, world=st.integers(1, 6), epochs=st.integers(1, 3))
def test_ranks_divide_the_batches_among_them(make, store, shape, world, epochs):
    alone = list(make(store, epochs=epochs, **shape))
    for rank in range(world):
        mine = list(make(store, epochs=epochs, rank=rank, world=world, **shape))
        assert same(mine, alone[rank::world])


@every
@many
@given(store=stores(), shape=shapes, data=st.data())
def test_a_stream_goes_on_from_any_saved_position_on_any_number_of_ranks(make, store, shape, data):
    world, epochs = data.draw(st.integers(1, 4)), 3
    alone = list(make(store, epochs=epochs, **shape))
    rounds = data.draw(st.integers(0, len(alone) // world))
    states = []
    for rank in range(world):
        stream = make(store, epochs=epochs, rank=rank, world=world, **shape)
        for _ in range(rounds):
            next(stream)
        states.append(stream.state_dict())
    assert all(state == states[0] for state in states), "the position differs between ranks"
    assert all(type(value) is int for value in states[0].values())
    other = data.draw(st.integers(1, 4))
    for rank in range(other):
        stream = make(store, epochs=epochs, rank=rank, world=other, **shape)
        if data.draw(st.booleans()):
            next(stream, None)
        stream.load_state_dict(states[0])
        assert same(list(stream), alone[rounds * world + rank :: other])


@every
@settings(max_examples=50, deadline=None)
@given(store=stores(smallest=4), shape=shapes)
def test_an_endless_stream_begins_like_a_finite_one_and_goes_on(make, store, shape):
    endless = make(store, epochs=None, **shape)
    finite = list(make(store, epochs=3, **shape))
    assert same(list(itertools.islice(endless, len(finite) - 1)), finite[:-1])
    assert all(len(batch.ids) == shape["batch"] for batch in itertools.islice(endless, 50))


@every
@settings(max_examples=50, deadline=None)
@given(store=stores(), shape=shapes)
def test_order_is_of_seed_and_epoch_and_the_global_generators_are_left_alone(make, store, shape):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    first = list(make(store, epochs=2, **shape))
    assert same(list(make(store, epochs=2, **shape)), first)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


@every
@settings(max_examples=50, deadline=None)
@given(store=stores(), shape=shapes)
def test_changing_a_batch_changes_nothing_that_follows_and_not_the_store(make, store, shape):
    before = [document.ids.copy() for document in store]
    expected = list(make(store, epochs=3, **shape))
    stream = make(store, epochs=3, **shape)
    found = []
    for batch, kept in zip(stream, make(store, epochs=3, **shape), strict=True):
        batch.ids.fill_(-7)
        batch.targets.fill_(-7)
        found.append(kept)
    assert same(found, expected)
    assert all((a == b.ids).all() for a, b in zip(before, store, strict=True))


@every
def test_a_hundred_documents_come_in_another_order_each_epoch_and_for_each_seed(make):
    store = [Tokens(np.array([number]), name=str(number)) for number in range(1, 101)]
    orders = []
    for seed in (1, 2):
        tokens = [token for ids, _, _ in rows(make(store, batch=2, time=2, seed=seed, epochs=2)) for token in ids]
        order = [token for token in tokens if token != END]
        assert sorted(order[:100]) == sorted(order[100:]) == list(range(1, 101))
        orders += [order[:100], order[100:]]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sum(a == b for a, b in zip(x, y, strict=True)) < 15 for x, y in itertools.combinations(orders, 2))


@every
@pytest.mark.parametrize("store", [[], [Tokens(np.array([], dtype=int))] * 3])
def test_nothing_to_learn_from_is_refused(make, store):
    with pytest.raises(UserError, match=f"nothing to learn from: {len(store)} documents without a token"):
        make(store, batch=1, time=4, seed=0)


@every
def test_a_position_in_other_data_is_refused(make):
    store = [Tokens(np.array([1, 2, 3]))] * 3
    state = make(store, batch=1, time=4, seed=0).state_dict()
    for other, seed in ((store[:2], 0), (store, 1)):
        with pytest.raises(UserError, match="the saved position is one among 3 documents with seed 0"):
            make(other, batch=1, time=4, seed=seed).load_state_dict(state)


class Counting(list):
    """A store that counts which tokens are read."""

    def __init__(self, documents):
        super().__init__(documents)
        self.known, self.tokens, self.read_tokens = token_store(list(self)), sum(len(d.ids) for d in self), 0

    def outline(self, indices):
        return self.known.outline(indices)

    def names(self, indices):
        return self.known.names(indices)

    def read(self, documents, starts, stops):
        self.read_tokens += int((stops - starts).sum())
        return self.known.read(documents, starts, stops)


@pytest.mark.parametrize("make", [blocks, fitting])
def test_tokens_are_read_when_they_are_needed_and_by_the_rank_that_needs_them(make):
    store = Counting(Tokens(np.arange(1, 6), name=str(number)) for number in range(1000))
    next(make(store, batch=2, time=12, seed=0))
    assert 20 <= store.read_tokens <= 26
    long = Counting([Tokens(np.arange(1, 5001))])
    whole = list(make(long, batch=1, time=10, seed=0, epochs=1))
    # One more for each row: the target at its end.
    assert len(whole) == 501 and 5000 <= long.read_tokens <= 5501
    long.read_tokens = 0
    assert len(list(make(long, batch=1, time=10, seed=0, epochs=1, rank=2, world=5))) == 100
    assert long.read_tokens <= 1100


@pytest.mark.parametrize(("make", "name"), [(blocks, "blocks"), (fitting, "best-fit")])
@pytest.mark.parametrize(("group", "label", "what"), [(0, -1, "belongs to a group"), (-1, 2, "has a class")])
def test_what_must_stay_in_a_row_of_its_own_is_refused(make, name, group, label, what):
    store = [Tokens(np.array([1, 2]), name="pair.jsonl:3", group=group, label=label)]
    with pytest.raises(UserError, match=rf"packer {name}: document pair\.jsonl:3 {what}; {name} puts several"):
        next(make(store, batch=1, time=4, seed=0))
