"""Packers: no token lost, no target across documents, resumable and divisible."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from corelm_data import padded as padded_module
from corelm_data.best_fit import BestFit, fitted
from corelm_data.blocks import Blocks
from corelm_data.padded import Padded
from corelm_data.shuffling import Shuffle
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from corelm.errors import UserError
from corelm.kinds import IGNORE, Tokens, token_store

END = 10_000
many = settings(max_examples=60, deadline=None)


@st.composite
def stores(draw, *, groups=False, labels=False, smallest=1):
    """Documents in which no token occurs twice (but the end), so that each says where it is from."""
    fresh = itertools.count(1)
    store = []
    shared = draw(st.booleans())
    for number in range(draw(st.integers(smallest, 12))):
        length = draw(st.sampled_from([0, 1, 2, 5, 20]))
        members = draw(st.sampled_from([1, 2, 3])) if groups else 1
        for _ in range(members):
            size = max(1, length) if groups and members > 1 else length
            ids = np.array(list(itertools.islice(fresh, size)), dtype=np.uint16)
            if size and draw(st.sampled_from([False, False, True])):
                ids[-1] = END
            learn = draw(st.sampled_from([None, "some"])) if shared else None
            marks = (
                None if learn is None else np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
            )
            label = draw(st.integers(0, 3)) if labels else -1
            store.append(Tokens(ids, marks, f"doc{len(store)}", number if members > 1 else -1, label))
    assume(any(len(document.ids) for document in store))
    return store


shapes = st.fixed_dictionaries(
    {"batch": st.integers(1, 4), "time": st.integers(2, 9), "seed": st.integers(-3, 10**6)}
)


def blocks(store, shuffle=1, **options):
    return Blocks(Blocks.Config(shuffle=shuffle)).stream(store, end_of_text=END, **options)


def fitting(store, window=3, **options):
    return BestFit(BestFit.Config(window=window)).stream(store, end_of_text=END, **options)


def padded(store, best_fit=False, cut="right", **options):
    return Padded(Padded.Config(best_fit=best_fit, cut=cut)).stream(store, end_of_text=END, **options)


def ended(document, *, always=False):
    """A document with the end that its packer puts after it, and which of its tokens are learnt."""
    ids = [int(token) for token in document.ids]
    learn = [True] * len(ids) if document.learn is None else [bool(mark) for mark in document.learn]
    if ids and ids[-1] != END and (always or (document.learn is None and document.label < 0)):
        ids.append(END)
        learn.append(document.learn is None)
    return ids, learn


def rows(batches):
    """Each row's real tokens, targets and documents."""
    for batch in batches:
        for row in range(len(batch.ids)):
            real = torch.ones_like(batch.ids[row], dtype=torch.bool) if batch.valid is None else batch.valid[row]
            assert (batch.targets[row][~real] == IGNORE).all()
            numbers = torch.zeros_like(batch.ids) if batch.documents is None else batch.documents
            assert real.sum() > 0
            assert not (real[1:] & ~real[:-1]).any(), "padding is not on the right"
            yield batch.ids[row][real].tolist(), batch.targets[row][real].tolist(), numbers[row][real].tolist()


def same(left, right):
    def plain(batch):
        tensors = [batch.ids, batch.targets, batch.documents, batch.valid, *batch.extra.values()]
        return [None if tensor is None else tensor.tolist() for tensor in tensors], batch.names

    return [plain(batch) for batch in left] == [plain(batch) for batch in right]


MAKES = {
    "blocks": blocks,
    "best-fit": fitting,
    "padded": padded,
    "padded-left": lambda store, **more: padded(store, cut="left", **more),
    "padded-filled": lambda store, **more: padded(store, best_fit=True, **more),
}
every = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


# ---------------------------------------------------------------- every packer


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


# ---------------------------------------------------------------- blocks


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
    for at in range(0, len(plain), window):
        assert sorted(plain[at : at + window]) == sorted(mixed[at : at + window])


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


@pytest.mark.parametrize(("make", "name"), [(blocks, "blocks"), (fitting, "best-fit")])
@pytest.mark.parametrize(("group", "label", "what"), [(0, -1, "belongs to a group"), (-1, 2, "has a class")])
def test_what_must_stay_in_a_row_of_its_own_is_refused(make, name, group, label, what):
    store = [Tokens(np.array([1, 2]), name="pair.jsonl:3", group=group, label=label)]
    with pytest.raises(UserError, match=rf"packer {name}: document pair\.jsonl:3 {what}; {name} puts several"):
        next(make(store, batch=1, time=4, seed=0))


# ---------------------------------------------------------------- best fit


def pieces(batches):
    """The stretches of one document in each row, the ends that were added left out of none."""
    for ids, _, numbers in rows(batches):
        row = [
            tuple(token for token, _ in run)
            for _, run in itertools.groupby(zip(ids, numbers, strict=True), lambda pair: pair[1])
        ]
        assert [number for number, _ in itertools.groupby(numbers)] == list(range(len(row)))
        yield row


@many
@given(store=stores(), shape=shapes, window=st.integers(1, 9), epochs=st.integers(1, 2))
def test_best_fit_cuts_long_documents_into_full_rows_and_a_rest_and_short_ones_never(store, shape, window, epochs):
    found = Counter(piece for row in pieces(fitting(store, window, epochs=epochs, **shape)) for piece in row)
    expected = Counter()
    for document in store:
        ids, _ = ended(document, always=True)
        expected.update(tuple(ids[at : at + shape["time"]]) for at in range(0, len(ids), shape["time"]))
    assert found == Counter({piece: count * epochs for piece, count in expected.items()})
    assert BestFit.keeps_whole and not BestFit.truncates


@many
@given(lengths=st.lists(st.integers(1, 12), max_size=40), room=st.integers(12, 20))
def test_best_fit_is_the_best_fit_of_the_longest_first(lengths, room):
    left, expected = [], [0] * len(lengths)
    for piece in sorted(range(len(lengths)), key=lambda piece: -lengths[piece]):
        fitting_rows = [row for row, rest in enumerate(left) if rest >= lengths[piece]]
        least = min((left[row] for row in fitting_rows), default=None)
        if least is None:
            left.append(room)
            fitting_rows, least = [len(left) - 1], room
        row = next(row for row in fitting_rows if left[row] == least)
        left[row] -= lengths[piece]
        expected[piece] = row
    found = fitted(np.array(lengths, dtype=np.int64), room)
    # Rows with equal room are as good as each other: how full the rows get is the same.
    fill = [Counter(np.bincount(rows, weights=lengths).tolist()) for rows in (found, expected)] if lengths else [0, 0]
    assert fill[0] == fill[1]


def test_best_fit_leaves_little_padding_where_many_documents_are_looked_at():
    lengths = np.random.default_rng(0).integers(1, 300, 4000)
    store = [Tokens(np.arange(1, length + 1)) for length in lengths]

    def padding(window):
        tokens, size = 0, 0
        for batch in fitting(store, window, batch=8, time=256, seed=0, epochs=1):
            tokens, size = tokens + batch.tokens, size + batch.ids.numel()
        return 1 - tokens / size

    assert padding(1024) < 0.005
    assert padding(1024) < padding(8) < 0.25


# ---------------------------------------------------------------- padded


@many
@given(store=stores(groups=True, labels=True), shape=shapes, epochs=st.integers(1, 2))
def test_groups_stay_side_by_side_in_one_batch_and_labels_beside_their_rows(store, shape, epochs):
    shape = {**shape, "batch": max(3, shape["batch"])}
    whole = {document.name: document for document in store}
    seen = Counter()
    for batch in padded(store, epochs=epochs, **shape):
        assert len(batch.ids) <= shape["batch"]
        members = [whole[name] for name in batch.names]
        assert batch.extra["labels"].tolist() == [document.label for document in members]
        for group, run in itertools.groupby(members, key=lambda document: document.group):
            run = [document.name for document in run]
            if group >= 0:
                expected = [document.name for document in store if document.group == group]
                assert run == expected * (len(run) // len(expected)), "a batch may span two epochs"
        seen.update(batch.names)
        assert batch.ids.shape[1] == max(min(shape["time"], len(document.ids)) for document in members)
    assert seen == {document.name: epochs for document in store if len(document.ids)}


@given(count=st.integers(1, 9), half=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_pairs_stand_at_rows_2i_and_2i_plus_1(count, half, seed):
    store = [
        Tokens(np.array([2 * pair + member + 1]), np.array([True]), f"{pair}{'cr'[member]}", pair)
        for pair in range(count)
        for member in range(2)
    ]
    for batch in padded(store, batch=2 * half, time=4, seed=seed, epochs=2):
        assert len(batch.ids) % 2 == 0
        for chosen, rejected in zip(batch.names[::2], batch.names[1::2], strict=True):
            assert (chosen[-1], rejected[-1], chosen[:-1]) == ("c", "r", rejected[:-1])


@many
@given(store=stores(), shape=shapes, cut=st.sampled_from(["right", "left"]))
def test_long_documents_are_cut_at_the_side_declared_and_counted(store, shape, cut):
    time = shape["time"]
    stream = padded(store, cut=cut, epochs=1, **shape)
    found = Counter(tuple(ids) for ids, _, _ in rows(stream))
    full = [ended(document)[0] for document in store if len(document.ids)]
    assert found == Counter(tuple(ids[:time] if cut == "right" else ids[-time:]) for ids in full)
    assert stream.truncated == sum(len(ids) > time for ids in full)
    assert Padded.truncates


@many
@given(store=stores(), shape=shapes, window=st.integers(1, 5))
def test_best_fit_keeps_documents_whole_and_apart_and_wastes_little(store, shape, window):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padded_module, "_WINDOW", window)
        found = list(rows(padded(store, best_fit=True, epochs=2, **shape)))
    documents = Counter()
    for ids, _, numbers in found:
        assert len(ids) <= shape["time"]
        runs = [
            [token for token, _ in run]
            for _, run in itertools.groupby(zip(ids, numbers, strict=True), lambda p: p[1])
        ]
        assert [number for number, _ in itertools.groupby(numbers)] == list(range(len(runs)))
        documents.update(map(tuple, runs))
    expected = Counter(tuple(ended(document)[0][: shape["time"]]) for document in store if len(document.ids))
    assert documents == Counter({ids: 2 * count for ids, count in expected.items()})
    # What begins a row had no room in any earlier one: no two rows of a window could have been one.
    if len(store) <= window:
        once = list(rows(padded(store, best_fit=True, epochs=1, **shape)))
        assert all(len(a[0]) + len(b[0]) > shape["time"] for a, b in itertools.combinations(once, 2))


def test_documents_of_like_length_in_one_batch_leave_little_padding():
    lengths = random.Random(0).choices(range(2, 60), k=300)
    store = [Tokens(np.arange(1, length + 1), name=f"doc{number}") for number, length in enumerate(lengths)]

    def padding(by_length):
        packer = Padded(Padded.Config(by_length=by_length))
        batches = list(packer.stream(store, end_of_text=END, batch=8, time=64, seed=0, epochs=1))
        assert Counter(len(ids) for ids, _, _ in rows(batches)) == Counter(length + 1 for length in lengths)
        assert [len(batch.ids) for batch in batches[:-1]] == [8] * (len(batches) - 1)
        widths = [batch.ids.shape[1] for batch in batches]
        assert widths not in (sorted(widths), sorted(widths, reverse=True)), (
            "short batches first is no order of chance"
        )
        return sum(int((~batch.valid).sum()) for batch in batches if batch.valid is not None) / sum(lengths)

    # Of 300 lengths sorted and cut in eights, a batch spans 58 / 38 tokens in the mean; chance spans most of the range.
    assert padding(by_length=True) < 0.05 < 0.4 < padding(by_length=False)


def test_filled_rows_have_no_length_of_their_own():
    (problem,) = Padded.check(Padded.Config(best_fit=True, by_length=True), None)
    assert problem.code == "filled-rows-by-length" and problem.remedy


@pytest.mark.parametrize(
    ("store", "options", "message"),
    [
        ([(0, 1), (-1, 1), (0, 1)], {}, "doc2 is apart from the rest of group 0"),
        ([(0, 1), (0, 0)], {}, "doc1 has no tokens but belongs to a group"),
        ([(0, 1), (0, 1), (0, 1)], {}, "doc2 is of a group of more than 2 documents"),
        ([(0, 1), (0, 1)], {"best_fit": True}, "doc0 belongs to a group or has a class, and best_fit mixes rows"),
    ],
)
def test_groups_that_cannot_be_kept_are_refused_by_name(store, options, message):
    documents = [
        Tokens(np.arange(1, length + 1), name=f"doc{number}", group=group)
        for number, (group, length) in enumerate(store)
    ]
    with pytest.raises(UserError, match=message):
        padded(documents, batch=2, time=4, seed=0, **options)
