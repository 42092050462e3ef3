"""Sets of digests: what was added is there, and what wasn't is not, also where many want the same place."""

import sys

import pytest
from corelm_data.digest_set import DigestSet
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(1, 300)))
def test_a_set_of_digests_is_a_set(numbers):
    small, known = DigestSet(8), set()
    for number in numbers:
        digest = number.to_bytes(8, "big")
        assert (digest in small) == (digest in known)
        assert small.add(digest) == (digest not in known)
        known.add(digest)
    assert len(small) == len(known)


@pytest.mark.parametrize("count", [10, 767, 768, 769, 20_000])
def test_the_set_of_digests_is_a_set_and_small(count):
    digests = [number.to_bytes(8, "big") * 2 for number in range(1, count + 1)]
    # Same first slot for many, so that they are kept beside each other.
    digests += [(1024).to_bytes(8, "big") + number.to_bytes(8, "big") for number in range(1, 50)]
    known = DigestSet(16)
    assert all(known.add(digest) for digest in digests)
    assert not any(known.add(digest) for digest in digests)
    if count == 20_000:
        assert sys.getsizeof(known._table) / len(digests) < 44
