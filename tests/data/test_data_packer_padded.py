"""The packer padded: rows of their own, groups side by side, several to a row where wanted."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from corelm_data import padded as padded_module
from corelm_data.padded import Padded
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import END, ended, many, padded, rows, shapes, stores

from corelm.errors import UserError
from corelm.kinds import Tokens


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
