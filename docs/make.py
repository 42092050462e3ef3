"""Writes what the program knows into the pages: ``python docs/make.py``.

With ``--measure`` the tests of the families are run first, and what they found is kept in ``architectures.json``; with
``--measure-kit [KIND …]`` the planted bugs are held to the properties, and what caught them is kept in ``catches.json``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    import architectures_page
    import catches_page
    import mutation_page
    import properties_page

    if "--measure" in sys.argv:
        architectures_page.measure()
    if "--measure-kit" in sys.argv:
        catches_page.measure(sys.argv[sys.argv.index("--measure-kit") + 1 :])
    for maker in (properties_page, catches_page, architectures_page, mutation_page):
        maker.PAGE.write_text(maker.page(), encoding="utf-8")
        print(f"wrote {maker.PAGE}")
