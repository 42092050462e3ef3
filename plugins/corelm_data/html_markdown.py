"""Posts in HTML back to the Markdown that they were written in."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

_BLOCKS: Final = frozenset("p div h1 h2 h3 h4 h5 h6 blockquote ul ol table tr dl dt dd".split())  # noqa: SIM905
_MARKS: Final = {"em": "*", "i": "*", "strong": "**", "b": "**", "s": "~~", "del": "~~"}
_EMPTY_LINES: Final = re.compile(r"\n{3,}")
_WHITE: Final = re.compile(r"[\t\r\n][ \t\r\n]*| [ \t\r\n]+")
"""White space that is not one space already."""


def markdown(html: str) -> str:
    """A fragment of simple HTML as Markdown: paragraphs, headings, code, quotations, lists, links, images, emphasis.

    Tags of other names vanish, and their words stay.
    """
    writer = _Writer()
    writer.feed(html)
    writer.close()
    return writer.text()


class _Writer(HTMLParser):
    """Writes as it reads; blocks inside of quotations and lists are indented when the line is written."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[str] = [""]
        self._indents: list[str] = []
        self._counters: list[int | None] = []
        self._links: list[str] = []
        self._fenced = False
        self._marker = ""

    def text(self) -> str:
        """What was written."""
        return _EMPTY_LINES.sub("\n\n", "\n".join(line.rstrip() for line in self._lines)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in _BLOCKS:
            self._block()
        if tag in ("ul", "ol"):
            self._counters.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._item()
        elif tag == "blockquote":
            self._indents.append("> ")
        elif re.fullmatch("h[1-6]", tag):
            self._put("#" * int(tag[1]) + " ")
        elif tag == "pre":
            self._block()
            self._put("```")
            self._fenced = True
            self._lines.append("")
        elif tag == "br":
            self._lines.append("")
        elif tag == "hr":
            self._block()
            self._put("---")
            self._block()
        elif tag == "img":
            self._put(f"![{given.get('alt') or ''}]({given.get('src') or ''})")
        elif tag == "a":
            self._links.append(given.get("href") or "")
            self._put("[")
        elif tag == "code" and not self._fenced:
            self._put("`")
        elif tag in _MARKS:
            self._put(_MARKS[tag])

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre" and self._fenced:
            if self._lines[-1].strip():
                self._lines.append("")
            self._fenced = False
            self._put("```")
            self._block()
        elif tag == "code" and not self._fenced:
            self._put("`")
        elif tag == "a" and self._links:
            self._put(f"]({self._links.pop()})")
        elif tag in _MARKS:
            self._put(_MARKS[tag])
        elif tag == "li" and self._indents:
            self._indents.pop()
            self._marker = ""
        elif tag in ("ul", "ol") and self._counters:
            self._counters.pop()
        elif tag == "blockquote" and self._indents:
            self._indents.pop()
        if tag in _BLOCKS:
            self._block()

    def handle_data(self, data: str) -> None:
        if self._fenced:
            first, *others = data.split("\n")
            self._put(first)
            for line in others:
                self._lines.append("")
                self._put(line)
            return
        line = _WHITE.sub(" ", data)
        if not self._lines[-1].strip():
            line = line.lstrip()
        if line:
            self._put(line)

    def _item(self) -> None:
        if self._lines[-1].strip():
            self._lines.append("")
        number = self._counters[-1] if self._counters else None
        self._marker = "* " if number is None else f"{number}. "
        if number is not None:
            self._counters[-1] = number + 1
        self._indents.append(" " * len(self._marker))

    def _block(self) -> None:
        """End the line, and leave one free; an item's first block follows its mark."""
        if self._lines[-1].strip() and not self._marker:
            self._lines += ["", ""]

    def _put(self, text: str) -> None:
        """Write on the last line, which begins with what it is inside of."""
        if not self._lines[-1]:
            inside = "".join(self._indents[:-1]) + self._marker if self._marker else "".join(self._indents)
            self._lines[-1] = inside
            self._marker = ""
        self._lines[-1] += text
