"""Elements of large XML files, one at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, Final

from corelm.kinds import library
from corelm_data.reading import Broken

_PARSE_HUGE: Final = re.compile(r",? (?:try|use) XML_PARSE_HUGE(?: option)?\s*")
"""Advice for programmers, at the end of libxml2's messages about its limits."""


def elements(stream: io.BufferedReader, *names: str, newest: str = "") -> Iterator[tuple[str, Any]]:
    """Elements of these local names with their name, in the order in which they end; each is gone after its turn.

    Of elements named ``newest`` that follow each other inside of these, only the last one is kept. An element may be
    looked at until the next one is asked for. Nothing is fetched, no entities are expanded but XML's own, and by
    libxml2's rule a text or attribute of more than ten million characters is an error, so that memory is bounded.
    (mwxml, made for such dumps, keeps an empty element per page, which is gigabytes for the larger wikis, and takes
    damaged letters for question marks.)

    Raises:
        Broken: the file is no XML from some line on, or has a text that is too long.
    """
    etree = library("lxml.etree", extra="data", by="an XML dump")
    tags = [f"{{*}}{name}" for name in (*names, newest) if name]
    try:
        for _, element in etree.iterparse(stream, tag=tags, resolve_entities=False, no_network=True, load_dtd=False):
            name = etree.QName(element).localname
            if name == newest:
                before = element.getprevious()
                if before is not None and before.tag == element.tag:
                    element.getparent().remove(before)
                continue
            yield name, element
            _forget(element)
    except etree.XMLSyntaxError as error:
        if error.code == etree.ErrorTypes.ERR_RESOURCE_LIMIT:
            raise Broken(
                f"more than is held at once: {_PARSE_HUGE.sub('', error.msg)}",
                remedy="Take it out of the dump: what follows can't be read.",
                code="xml-too-large",
            ) from error
        raise Broken(
            f"not XML: {error.msg}",
            remedy="Fetch the file again; is it the whole file, and unpacked?",
            code="xml-broken",
        ) from error


def _forget(element: Any) -> None:
    """Empty an element, and take away those before it."""
    element.clear(keep_tail=False)
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]
