"""Texts that cleaners are tried on."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

SENTENCES: Final = (
    "The ferry that leaves the old harbour at seven brings the people of the island to their work.",
    "Nobody could say with certainty when the tower had been built, or what it was to be used for.",
    "To mend the roof before winter, they had to carry the slates up a ladder of twenty steps.",
    "She wrote that the letters would be kept in a box of cedar, and that the key was lost.",
    "A river of that size moves more sand in a day than the diggers have taken in a year.",
    "It is easier to be patient with a clock than with the man who winds it every evening.",
)
"""Sentences of which prose is made that rules for quality let through; the first two are evaluation data too."""

ODDITIES: Final = (
    "<!doctype html><html><body><nav>Home</nav><p>The ferry brings the people to work.</p></body></html>",
    "schÃ¶n &amp;amp; cafÃ© â€œquotedâ€\x9d", "Write to jane.doe@example.org or +49 30 1234567 soon.",
    "DE89 3704 0044 0532 0130 00 and 4111 1111 1111 1111", "8.8.8.8, 127.0.0.1, 2001:4860:4860::8888",
    "Enable javascript to read on, please do.", "We use cookies, see our privacy policy for more.",
    "lorem ipsum dolor", "{ return x; }", "* one\n* two\n* three", "and so on ...", "# # # ###", "[1] [[2]3] [edit]",
    "Der Turm am Hafen ist älter als die Stadt, und niemand weiß, wozu er gebaut wurde.", "la la la la la la la la",
    "same line\nsame line\nsame line", "[e-mail] [phone]@example.org", "1234567 89", "   \n\n  ",
)  # fmt: skip
"""What cleaners are for."""


@cache
def options() -> dict[str, tuple[Any, ...]]:
    """Values of options that can't be made up: languages, and a small set of evaluation data."""
    path = Path(tempfile.mkdtemp(prefix="corelm-kit-")) / "evaluation.jsonl"
    path.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in SENTENCES[:2]), encoding="utf-8")
    return {"languages": (["en"], ["de", "en"]), "against": ([{"use": "corelm:jsonl", "path": str(path)}],)}
