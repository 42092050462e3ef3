"""Wikitext without its markup."""

from __future__ import annotations

import re
from typing import Any, Final

from corelm.kinds import library
from corelm_data.reading import Broken

UNSEEN: Final = frozenset(
    "ref references table gallery imagemap timeline math chem score hiero graph mapframe maplink templatestyles "  # noqa: SIM905
    "indicator section style script inputbox".split()
)
"""Tags whose contents aren't running text."""

_GAPS: Final = (
    (re.compile(r"(?<=\S)[ \t]{2,}(?=\S)"), " "),
    (re.compile(r"[ \t]+$", re.M), ""),
    (re.compile(r"\n{3,}"), "\n\n"),
)
"""What is left where markup was taken out, and what stands there instead."""


def plain_text(wikitext: str, unread: frozenset[str]) -> str:
    """The running text of a page, parsed by mwparserfromhell.

    Headings, links and lists keep their words (and lists their ``*`` and ``#``); templates, tables, references, comments
    and links to files and categories go. Templates are programs of their wiki: a sentence that one writes, such as a
    converted unit, is lost.

    Args:
        wikitext: as authors write it.
        unread: namespaces in small letters, links into which are no text: ``file``, ``category`` and their local names.

    Raises:
        Broken: the parser gives up.
    """
    mwparserfromhell = library("mwparserfromhell", extra="data", by="`markup: strip`")
    try:
        text = _plain(mwparserfromhell.parse(wikitext), unread)
    except (mwparserfromhell.parser.ParserError, RecursionError) as error:
        raise Broken(f"markup that can't be parsed: {error}", code="markup-broken") from error
    for gap, instead in _GAPS:
        text = gap.sub(instead, text)
    return text.strip()


def _plain(code: Any, unread: frozenset[str]) -> str:
    return "".join(_node(node, unread) for node in code.nodes)


def _node(node: Any, unread: frozenset[str]) -> str:
    kind = type(node).__name__
    if kind == "Text":
        return str(node.value)
    if kind == "Heading":
        return _plain(node.title, unread).strip()
    if kind == "Wikilink":
        space, colon, _ = str(node.title).partition(":")
        if colon and space.strip().lower() in unread:
            return ""
        return _plain(node.title if node.text is None else node.text, unread).removeprefix(":")
    if kind == "ExternalLink":
        if node.title is not None:
            return _plain(node.title, unread)
        return "" if node.brackets else str(node.url)
    if kind == "HTMLEntity":
        return str(node.normalize())
    return _tag(node, unread) if kind == "Tag" else ""


def _tag(node: Any, unread: frozenset[str]) -> str:
    name = str(node.tag).strip().lower()
    if name in UNSEEN:
        return ""
    if name == "br":
        return "\n"
    if node.wiki_markup in ("*", "#"):
        return str(node.wiki_markup)
    return "" if node.contents is None else _plain(node.contents, unread)
