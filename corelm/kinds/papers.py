"""Where a part comes from: the papers that its docstring cites, read out of it so that they stand in one place."""

from __future__ import annotations

import re
from typing import NamedTuple

_IDENTIFIER = r"(?:arXiv:|doi:|https?://)[^\s;,]+"
_NAME = r"[^\W\d_a-z][^\s(),;:.]*"
_WHO = rf"{_NAME}(?: (?:{_NAME}|&|and|team|de|van|von))*(?: et al\.)?"
_CITED = re.compile(rf'(?:(?P<who>{_WHO})(?:, | \()(?P<year>\d{{4}}), (?:"[^"]*", )?)?(?P<identifier>{_IDENTIFIER})')


class Paper(NamedTuple):
    """One work that is cited.

    Attributes:
        citation: authors and year, e.g. ``Su et al., 2021``; empty where the docstring doesn't say.
        identifier: ``arXiv:2104.09864``, ``doi:10.1137/0203025`` or an address.
    """

    citation: str
    identifier: str

    @property
    def address(self) -> str:
        """Where it can be read."""
        scheme, _, name = self.identifier.partition(":")
        return {"arXiv": f"https://arxiv.org/abs/{name}", "doi": f"https://doi.org/{name}"}.get(
            scheme, self.identifier
        )


def cited(docstring: str | None) -> tuple[Paper, ...]:
    """What a docstring cites as ``authors, year, identifier``, in order, each work once."""
    found: dict[str, Paper] = {}
    for match in _CITED.finditer(" ".join((docstring or "").split())):
        identifier = match["identifier"].rstrip(".:)")
        who, year = match["who"], match["year"]
        found.setdefault(identifier, Paper(f"{who}, {year}" if who else "", identifier))
    return tuple(found.values())
