"""Pages of the web as text: which encoding they are in."""

from __future__ import annotations

import importlib
import re
from typing import Final

from corelm_data.reading import Broken

_DECLARED: Final = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:\-]+)""", re.IGNORECASE)
_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def decoded_html(content: bytes, content_type: str) -> str:
    """A page as text, its encoding found in the order of the HTML standard (https://html.spec.whatwg.org, 13.2.3.2).

    Byte order mark, header of HTTP, ``meta`` among the first 1024 bytes; then UTF-8, then what charset-normalizer takes
    it for. Labels mean what browsers take them for: latin-1 is windows-1252. A declared encoding that the page isn't in is
    passed over for the next guess.

    Raises:
        Broken: no encoding fits.
    """
    mark = next((encoding for sign, encoding in _MARKS if content.startswith(sign)), None)
    header = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:\-]+)", content_type, re.IGNORECASE)
    meta = _DECLARED.search(content[:1024])
    said = [mark, header[1] if header else None, meta[1].decode("ascii") if meta else None, "utf-8"]
    for label in said:
        try:
            if label is not None:
                return content.decode(_LIKE_BROWSERS.get(label.lower(), label))
        except (UnicodeError, LookupError):
            continue
    try:
        guess = importlib.import_module("charset_normalizer").from_bytes(content[: 1 << 20]).best()
        if guess is not None:
            return content.decode(guess.encoding)
    except (ImportError, UnicodeError):
        pass
    raise Broken("no encoding fits it", code="encoding-unknown")


_LIKE_BROWSERS: Final = {
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "windows-1252": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "sjis": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "iso-8859-9": "cp1254",
}
