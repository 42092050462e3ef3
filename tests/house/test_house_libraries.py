"""Libraries that not everybody has are imported in one way."""

import sys

import pytest

from corelm.errors import UserError
from corelm.kinds import library


def test_a_library_that_is_there_is_imported():
    assert library("json", extra="data", by="this test").dumps(1) == "1"


def test_one_that_is_missing_is_asked_for_by_who_needs_it_and_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(
        UserError, match=r'^the part x needs the library tiktoken: .*\n  pip install "corelm\[data\]"$'
    ) as caught:
        library("tiktoken", extra="data", by="the part x")
    assert caught.value.code == "library-missing"
