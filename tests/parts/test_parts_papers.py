"""Papers are read out of docstrings as people write them."""

from __future__ import annotations

import pytest

from corelm.kinds import Component, Paper, cited

ROPE, LORA = "arXiv:2104.09864", "arXiv:2106.09685"


@pytest.mark.parametrize(
    ("docstring", "papers"),
    [
        (f"Turns pairs (Su et al., 2021, {ROPE}).", [("Su et al., 2021", ROPE)]),
        (f"Su & Ho, 2021,\n    {ROPE}; Hägele, 2021, {LORA} (X).", [("Su & Ho, 2021", ROPE), ("Hägele, 2021", LORA)]),
        (f"As first done by Su et al. (2021, {ROPE}): so.", [("Su et al., 2021", ROPE)]),
        (f"In that of DeepSeek-AI, 2021, {ROPE}. More", [("DeepSeek-AI, 2021", ROPE)]),
        ('LeCun et al., 1998, "BackProp", doi:10.1007/3-540_2. So', [("LeCun et al., 1998", "doi:10.1007/3-540_2")]),
        ("(Wang & Ko, 2021, https://github.com/x/mesh): one", [("Wang & Ko, 2021", "https://github.com/x/mesh")]),
        (f"Twice (Su, 2021, {ROPE}), and {ROPE} again.", [("Su, 2021", ROPE)]),
        ("Nobody in particular: arXiv:cs/0112017.", [("", "arXiv:cs/0112017")]),
        ("None at all, in 2021.", []),
        (None, []),
    ],
)
def test_citations_are_read_as_they_are_written(docstring, papers):
    assert cited(docstring) == tuple(Paper(*paper) for paper in papers)


def test_every_identifier_has_an_address():
    identifiers = ["arXiv:2104.09864", "doi:10.1137/0203025", "https://example.org/a"]
    addresses = ["https://arxiv.org/abs/2104.09864", "https://doi.org/10.1137/0203025", "https://example.org/a"]
    assert [Paper("", identifier).address for identifier in identifiers] == addresses


def test_a_part_cites_what_its_own_docstring_does():
    class Turning(Component):
        """Turns (Su et al., 2021, arXiv:2104.09864)."""

    class Wobbling(Turning):
        """Turns a little."""

    assert [paper.citation for paper in Turning.papers()] == ["Su et al., 2021"]
    assert Wobbling.papers() == ()
