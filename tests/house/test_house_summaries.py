"""The one line that tells of a part."""

from __future__ import annotations

import pytest

from corelm.registration import Registry, active


@pytest.mark.parametrize("record", active().parts(), ids=lambda record: f"{record.kind}/{record.name}")
def test_a_summary_is_the_first_sentence_of_the_docstring_without_its_full_stop(record):
    first = " ".join((record.load().__doc__ or "").strip().partition("\n\n")[0].split())
    assert not record.summary.endswith(".")
    assert f"{record.summary}." == first


def test_a_strangers_full_stop_is_left_out_too():
    registry = Registry()
    registrar = registry.registrar("acme", "1", "acme")
    registrar.add_kind("retriever", "acme:Retriever", summary="Finds documents.")
    registrar.add("retriever", "nearest", "acme:Nearest", summary="By distance.")
    assert registry.kinds["retriever"].summary == "Finds documents"
    assert registry.records[0].summary == "By distance"
