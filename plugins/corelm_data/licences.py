"""Which licence a file of a licence's text is, as an SPDX identifier (https://spdx.org/licenses).

A licence is known by a few of its own words, compared without regard to case, punctuation and line breaks, so that
another holder's name or another width of the text makes no difference. The words come from the licences; where one text
contains another's (BSD with three clauses contains that with two), the longer one stands first.
"""

from __future__ import annotations

import re
from typing import Final

UNKNOWN: Final = "NOASSERTION"
"""SPDX's word for "nobody says"."""

_DECLARED: Final = re.compile(
    r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+\-]+(?:[ \t]+(?:AND|OR|WITH)[ \t]+[A-Za-z0-9.+\-]+)*)"
)

_WORDS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Apache-2.0", ("apache license version 2 0", "grant of patent license")),
    ("Apache-2.0", ("licensed under the apache license version 2 0",)),
    ("AGPL-3.0", ("gnu affero general public license", "version 3 19 november 2007")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3 29 june 2007")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2 1 february 1999")),
    ("GPL-3.0", ("gnu general public license", "version 3 29 june 2007")),
    ("GPL-2.0", ("gnu general public license", "version 2 june 1991")),
    ("MPL-2.0", ("mozilla public license version 2 0",)),
    ("EPL-2.0", ("eclipse public license v 2 0",)),
    ("BSL-1.0", ("boost software license version 1 0",)),
    ("CC0-1.0", ("cc0 1 0 universal",)),
    ("CC-BY-SA-4.0", ("attribution sharealike 4 0 international",)),
    ("CC-BY-4.0", ("attribution 4 0 international",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("WTFPL", ("do what the fuck you want to public license",)),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("Zlib", ("this software is provided as is without any express or implied warranty", "altered source versions")),
    (
        "BSD-4-Clause",
        ("redistribution and use in source and binary forms", "all advertising materials mentioning features"),
    ),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name of")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "may not be used to endorse or promote")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms", "redistributions in binary form must")),
    (
        "MIT",
        (
            "permission is hereby granted free of charge to any person obtaining a copy",
            "the above copyright notice and this permission notice",
        ),
    ),
    ("0BSD", ("without fee is hereby granted the software is provided as is",)),
    ("ISC", ("permission to use copy modify and or distribute this software for any purpose",)),
)  # fmt: skip

FILES: Final = re.compile(r"(un)?licen[cs]e([-._].*)?|copying([-._].*)?|mit-licen[cs]e(\..*)?", re.IGNORECASE)
"""Names of files that hold a licence."""

LONGEST: Final = 1 << 16
"""Bytes of a licence that are looked at; the longest of those above has 36,000."""


def declared(text: str) -> str | None:
    """What a file says of itself (``SPDX-License-Identifier: MIT``)."""
    found = _DECLARED.search(text)
    return found[1] if found else None


def detected(text: str) -> str:
    """The SPDX identifier of a licence's text; ``NOASSERTION`` where it is none of the known ones."""
    said = declared(text)
    if said:
        return said
    words = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
    return next((name for name, signs in _WORDS if all(sign in words for sign in signs)), UNKNOWN)
