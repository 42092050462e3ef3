"""Processes under hash seeds of their own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable

import pytest

from corelm.conformance import fresh
from corelm.conformance.bugs.tokenizer import HashedOrder, Pairs


class Ending(Pairs):
    """Takes its process with it."""

    def train(self, documents: Iterable[str], specials=("<|endoftext|>",)) -> None:
        os._exit(3)


class Killed(Pairs):
    """Dies by a signal, as one that crashes does."""

    def train(self, documents: Iterable[str], specials=("<|endoftext|>",)) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Leaving(Pairs):
    """Would like to exit."""

    def train(self, documents: Iterable[str], specials=("<|endoftext|>",)) -> None:
        sys.exit("no time for pairs")


class Raising(Pairs):
    """Raises what the fresh process must tell of."""

    def train(self, documents: Iterable[str], specials=("<|endoftext|>",)) -> None:
        raise RuntimeError("no pairs today")


def _where(part: type) -> str:
    return f"{part.__module__}:{part.__qualname__}"


def test_the_same_digest_where_nothing_is_hashed():
    first, second = fresh.digests("tokenizer", _where(Pairs))
    assert first == second
    assert fresh.digests("tokenizer", _where(Pairs)) == [first, first]


def test_hash_seeds_show_what_is_hashed():
    first, second = fresh.digests("tokenizer", _where(HashedOrder))
    assert first != second


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (Ending, "ended with 3"),
        (Killed, "ended with SIGKILL"),
        (Leaving, "SystemExit: no time for pairs"),
        (Raising, "RuntimeError: no pairs today"),
    ],
)
def test_what_goes_wrong_there_is_told_and_the_next_part_is_served(part, told):
    with pytest.raises(AssertionError, match=told):
        fresh.digests("tokenizer", _where(part))
    first, second = fresh.digests("tokenizer", _where(Pairs))
    assert first == second
