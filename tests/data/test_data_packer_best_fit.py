"""The packer best-fit: whole documents, little padding."""

import itertools
from collections import Counter

import numpy as np
from corelm_data.best_fit import BestFit, fitted
from hypothesis import given
from hypothesis import strategies as st
from packing import ended, fitting, many, rows, shapes, stores

from corelm.kinds import Tokens


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
