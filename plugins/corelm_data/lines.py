"""Lines of a file, none of them longer than is declared."""

from __future__ import annotations

import io
from collections.abc import Iterator

from corelm_data.compressed import Damaged
from corelm_data.reading import Broken, broken_off


def lines(file: io.BufferedReader, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Each line with its number from one on, its line break included; None for one of more than ``longest`` bytes.

    A byte order mark at the beginning is taken off.

    Raises:
        Broken: the compressed file breaks off or is damaged; the number of the last whole line is named.
    """
    number = 0
    try:
        while line := file.readline(longest + 1):
            number += 1
            if len(line) > longest:
                yield number, None
                while line and not line.endswith(b"\n"):
                    line = file.readline(longest)
                continue
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except Damaged as error:
        raise broken_off(error, f" after line {number}") from error


def too_long(longest: int) -> Broken:
    """The error for a line of more than ``longest`` bytes."""
    return Broken(
        f"a line of more than {longest:,} bytes",
        remedy="Is it a file of lines? If lines may be that long, raise longest.",
        code="line-too-long",
    )


def not_utf8(error: UnicodeDecodeError, place: str = "", offset: int = 0) -> Broken:
    """The error for bytes that are no text; ``offset``: of the first of those that were decoded."""
    encoding = "UTF-8" if error.encoding == "utf-8" else error.encoding
    return Broken(
        f"not {encoding} at byte {offset + error.start}{place} ({error.reason})",
        remedy="Convert it, e.g. with `iconv -f ENCODING -t UTF-8`, or leave it out.",
        code="not-utf8",
    )
