"""Writes what the program knows into the pages: ``python docs/make.py``.

With ``--measure`` the tests of the families are run first, and what they found is kept in ``architectures.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corelm.conformance import properties
from corelm.registration import active

PAGE = Path(__file__).with_name("conformance.md")
BEGIN, END = "<!-- properties: written by docs/make.py -->\n", "<!-- end -->\n"


def tables() -> str:
    """One table of properties for what all kinds share, and one per kind."""
    kinds = [name for name, kind in sorted(active().kinds.items()) if kind.distribution == "corelm"]
    shared = [prop for prop in properties(kinds[0]) if prop.kind == "*"]
    sections = [("Every kind", shared)]
    sections += [(f"`{kind}`", [prop for prop in properties(kind) if prop.kind == kind]) for kind in kinds]
    return "\n".join(
        f"### {title}\n\n| property | law | tier |\n| --- | --- | --- |\n"
        + "".join(
            f"| `{prop.name}` | {prop.statement.replace('|', chr(92) + '|')} | {prop.tier} |\n" for prop in found
        )
        for title, found in sections
        if found
    )


def written(page: str) -> str:
    """The page with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
    import architectures_page

    if "--measure" in sys.argv:
        architectures_page.measure()
    architectures_page.PAGE.write_text(architectures_page.page(), encoding="utf-8")
    print(f"wrote {architectures_page.PAGE}")
