"""The order of an epoch: a permutation for every count and key, without being held anywhere."""

import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from corelm_data.shuffling import Shuffle
from hypothesis import given, settings
from hypothesis import strategies as st


def order(count, *key):
    return Shuffle(count, *key).span(0, count)


@pytest.mark.parametrize("epoch", [0, 1])
def test_every_count_up_to_hundreds_is_permuted(epoch):
    for count in range(400):
        assert sorted(order(count, 3, epoch).tolist()) == list(range(count))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 60_000), seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 2**40))
def test_any_count_is_permuted_whatever_the_key(count, seed, epoch):
    assert np.array_equal(np.sort(order(count, seed, epoch)), np.arange(count))


@pytest.mark.parametrize("count", [2**20, 2**20 + 1, 1023**2, 1024**2 - 1])
def test_counts_around_squares_are_permuted(count):
    assert np.array_equal(np.sort(order(count, 7)), np.arange(count))


@given(count=st.integers(1, 10**15), places=st.lists(st.integers(0, 10**15), min_size=1), seed=st.integers())
def test_among_very_many_different_places_have_different_numbers(count, places, seed):
    places = np.array([place % count for place in places])
    found = Shuffle(count, seed).at(places)
    assert ((found >= 0) & (found < count)).all()
    assert len(set(found.tolist())) == len(set(places.tolist()))


def test_places_are_the_same_one_by_one_and_together():
    whole = order(1000, 5, 1)
    assert [int(Shuffle(1000, 5, 1).at(np.array([place]))[0]) for place in range(0, 1000, 37)] == whole[::37].tolist()
    assert np.array_equal(Shuffle(1000, 5, 1).span(990, 2000), whole[990:])


def test_all_orders_of_a_few_are_drawn_about_equally_often():
    for count, orders in ((2, 2), (3, 6), (4, 24)):
        drawn = Counter(tuple(order(count, seed).tolist()) for seed in range(100 * orders))
        assert len(drawn) == orders
        # Binomial: six standard deviations of ten around a hundred.
        assert all(40 < times < 160 for times in drawn.values()), drawn


def test_where_a_number_comes_is_uniform():
    places = np.zeros((10, 10))
    for seed in range(5000):
        places[np.arange(10), order(10, seed)] += 1
    # Chi-square with 81 degrees of freedom: mean 81, standard deviation 12.7.
    assert ((places - 500) ** 2 / 500).sum() < 81 + 6 * 12.7


def test_other_epochs_and_seeds_have_other_orders_without_a_pattern():
    orders = [order(2000, seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).sum() < 12, "two orders agree more than by chance"
    for one in orders:
        line = np.arange(2000)
        assert abs(np.corrcoef(one, line)[0, 1]) < 0.15
        assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.15


def test_orders_never_change_between_versions_and_machines():
    assert order(10, 1337, 0).tolist() == [8, 9, 5, 1, 6, 7, 2, 3, 0, 4]
    assert Shuffle(10**12, 1337, 1).span(0, 3).tolist() == [437816540633, 261660097586, 395075440730]


def test_memory_is_the_same_for_a_billion_documents():
    tracemalloc.start()
    Shuffle(10**9, 1).span(5 * 10**8, 5 * 10**8 + 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
