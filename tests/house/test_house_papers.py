"""Every part that is mathematics says where it comes from."""

from __future__ import annotations

import pytest

from corelm.registration import active

MATHEMATICS = {
    "activation",
    "adapter",
    "aligner",
    "attention",
    "block",
    "connection",
    "embedding",
    "feedforward",
    "head",
    "init",
    "mask",
    "norm",
    "objective",
    "optimizer",
    "position",
    "quantizer",
    "router",
    "sampler",
    "scaling",
    "schedule",
}
"""Kinds whose parts compute something that somebody published, or that is elementary."""

RECORDS = [record for record in active().parts() if record.kind in MATHEMATICS and record.distribution == "corelm"]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.kind}/{record.name}")
def test_a_part_of_mathematics_names_its_paper_or_says_that_it_needs_none(record):
    part = record.load()
    papers = part.papers()
    assert papers or part.elementary, f"{record.target} cites nothing: `Authors, year, arXiv:…` in its docstring"
    assert all(paper.citation for paper in papers), f"{papers}: authors and year stand before the identifier"


def test_no_other_part_is_called_elementary():
    assert {record.kind for record in active().parts() if record.load().elementary} <= MATHEMATICS
