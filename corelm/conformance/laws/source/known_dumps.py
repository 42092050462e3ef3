"""Known files of formats in which the web is published."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import zlib
from collections.abc import Callable, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from corelm.conformance.laws.source.known import Known

MARKUP: Final = """'''Bold''' and [[Link|linked]], [[plain]] &amp; [https://example.org shown].{{Template|x}}
== Head ==
* item<ref>not this</ref>
# number
[[Datei:a.png|thumb|not this]][[File:b.png]]one<br>two<table><tr><td>not this</td></tr></table> [https://example.org]
[[:File:c.png]] https://example.org/so <!-- not this --><small>small</small>"""

PLAIN: Final = """Bold and linked, plain & shown.
Head
* item
# number
one
two
File:c.png https://example.org/so small"""


def _page(
    title: str, number: int, *texts: str, space: int = 0, redirect: bool = False, model: str = "wikitext"
) -> str:
    revisions = "".join(f"<revision><model>{model}</model><text>{escape(text)}</text></revision>" for text in texts)
    to = '<redirect title="A" />' if redirect else ""
    return f"<page><title>{title}</title><ns>{space}</ns><id>{number}</id>{to}{revisions}</page>\n"


def wikipedia_dump() -> list[Known]:
    """Markup, names of namespaces, histories, and the pages that are left out."""
    spaces = "".join(
        f'<namespace key="{key}">{name}</namespace>' for key, name in ((0, ""), (1, "Talk"), (6, "Datei"))
    )
    head = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">\n'
        f"<siteinfo><namespaces>{spaces}</namespaces></siteinfo>\n"
    )
    pages = [
        _page("A", 1, "old", MARKUP),
        _page("Talk:A", 2, "talk", space=1),
        _page("R", 3, "to A", redirect=True),
        _page("M.css", 4, "a {}", model="css"),
        _page("E", 5, " \n"),
        _page("B", 6, "Text of B."),
        _page("N", 7, ""),
    ]
    dump = (head + "".join(pages) + "</mediawiki>").encode()
    name = "wikipedia-dump: w.xml page"
    left = {"namespace": 1, "redirect": 1, "model": 1, "empty": 2}
    second = (f"{name} 6 B", "Text of B.")
    return [
        Known({"w.xml": dump}, [(f"{name} 1 A", f"A\n\n{PLAIN}"), (second[0], f"B\n\n{second[1]}")], left_out=left),
        Known(
            {"w.xml.bz2": bz2.compress(dump[:99]) + bz2.compress(dump[99:])},
            [
                ("wikipedia-dump: w.xml.bz2 page 1 A", MARKUP),
                ("wikipedia-dump: w.xml.bz2 page 2 Talk:A", "talk"),
                ("wikipedia-dump: w.xml.bz2 page 3 R", "to A"),
                ("wikipedia-dump: w.xml.bz2 page 6 B", "Text of B."),
            ],
            {"markup": "keep", "title": False, "namespaces": [0, 1], "redirects": True},
            {"model": 1, "empty": 2},
        ),
        Known({"w.xml": b"<rows><row /></rows>"}, [], refused=("w.xml", "no pages")),
        Known({"w.xml": head.encode() + b"<page><title>A</title></revision>"}, [], refused=("w.xml", "line 3")),
    ]


def _entry(kind: str, content: bytes, uri: str = "https://example.org/", **more: str) -> bytes:
    said = {
        "WARC-Type": kind,
        "WARC-Target-URI": uri,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    lines = [f"{name}: {value}" for name, value in {**said, "Content-Length": str(len(content))}.items()]
    return "\r\n".join(["WARC/1.0", *lines, "", ""]).encode() + content + b"\r\n\r\n"


def _answer(page: bytes, status: str = "200 OK", **headers: str) -> bytes:
    said = {"Content-Type": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in said.items()), "", ""]
    return _entry("response", "\r\n".join(lines).encode() + page)


def _raw(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


def common_crawl() -> list[Known]:
    """Encodings and where they are declared, compression, and answers that are no page."""
    euro, html = "<p>Ä €</p>", "text/html"
    meta = '<META content="text/html; charset=Shift_JIS"><p>日本語 ①</p>'
    turkish = "<meta charset='iso-8859-9'><p>ş</p>"
    russian = "<p>В начале было слово, и слово это было на русском языке, а язык никто не назвал.</p>" * 3
    cut = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (b"<p>one ", b"two</p>")) + b"0\r\n\r\n"
    pages: list[tuple[bytes, str | None]] = [
        (_entry("warcinfo", b"software: by hand"), None),
        (_answer(euro.encode("cp1252"), Content_Type=f"{html}; charset=ISO-8859-1"), euro),
        (_answer(euro.encode("cp1252"), Content_Type='Text/HTML; Charset="Latin1"'), euro),
        (_answer(meta.encode("cp932")), meta),
        (_answer(turkish.encode("cp1254")), turkish),
        (_answer(b"\xef\xbb\xbf" + euro.encode(), Content_Type=f"{html}; charset=latin1"), euro),
        (_answer(b"\xff\xfe" + euro.encode("utf-16-le"), Content_Type=f"{html}; charset=latin1"), euro),
        (_answer("Ä".encode(), Content_Type=f"{html}; charset=latin1"), "Ã„"),
        (_answer(euro.encode(), Content_Type="application/xhtml+xml"), euro),
        (_answer(euro.encode(), Content_Type=f"{html}; charset=ascii-with-nothing"), euro),
        (_answer(gzip.compress(euro.encode()), Content_Encoding="GZIP"), euro),
        (_answer(zlib.compress(euro.encode()), Content_Encoding="deflate"), euro),
        (_answer(_raw(euro.encode()), Content_Encoding="deflate"), euro),
        (_answer(cut, Transfer_Encoding="Chunked"), "<p>one two</p>"),
        (_answer(b"<p>no</p>", "404 Not Found"), None),
        (_answer(b"no page", Content_Type="text/plain"), None),
        (_entry("revisit", b""), None),
        (_entry("response", b"so", uri="dns:example.org"), None),
        (_entry("request", b"GET / HTTP/1.1\r\n\r\n"), None),
        (_answer(b"<p>last</p>"), "<p>last</p>"),
    ]
    if importlib.util.find_spec("charset_normalizer"):
        pages.append((_answer(russian.encode("cp1251")), russian))
    place = " record {} https://example.org/"
    came = [
        ("warc: a.warc" + place.format(n), text) for n, (_, text) in enumerate(pages, start=1) if text is not None
    ]
    packed = [(name.replace("a.warc", "a.warc.gz"), text) for name, text in came]
    left = {"status": 1, "content-type": 1, "revisit": 1}
    good = _answer(b"<p>good</p>")
    told = [("warc: a.warc" + place.format(1), "<p>good</p>")]
    wrong = _entry(
        "response", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>no</p>", WARC_Block_Digest="sha1:AAAA"
    )
    return [
        Known({"a.warc": b"".join(each for each, _ in pages), "b.txt": b"none"}, came, left_out=left),
        Known({"a.warc.gz": b"".join(gzip.compress(each) for each, _ in pages)}, packed, left_out=left),
        Known({"a.warc": good + _answer(b"x", Content_Encoding="br")}, told, refused=("a.warc record 2", "as br")),
        Known({"a.warc": good + good[:-9]}, told, refused=("a.warc", "record 2", "ends before")),
        Known({"a.warc": good + wrong}, told, refused=("a.warc record 2", "digest")),
        Known({"a.warc": good + _answer(b"y" * 200)}, told, {"longest": 150}, refused=("a.warc record 2", "150 bytes")),
        Known(
            {"a.warc": good + _answer(gzip.compress(b"y" * 9999), Content_Encoding="gzip")},
            told,
            {"longest": 500},
            refused=("a.warc record 2", "gzip"),
        ),
    ]  # fmt: skip


def converted_pages() -> list[Known]:
    """What is a text and what isn't; letters that are none."""
    first = _entry("warcinfo", b"software: by hand") + _entry("conversion", "Ä\nb".encode(), "https://example.org/1")
    came = [("wet: a.wet record 2 https://example.org/1", "Ä\nb")]
    return [
        Known({"a.wet": first, "a.warc": _entry("conversion", b"not this")}, came),
        Known({"a.wet": first + _entry("conversion", b"ab\xff")}, came, refused=("a.wet record 3", "byte 2 ")),
        Known({"a.wet": first + _entry("conversion", b" ")}, came, refused=("a.wet record 3", "no text")),
    ]


POST: Final = """<h2>Head</h2>
<p>Some <em>words</em>, <strong>more</strong>
and <code>a &lt; b</code>.<br>Next <a href="https://example.org">there</a>.</p>
<pre><code>if a:

    b
</code></pre>
<ul><li>one</li><li><p>two</p><p>more</p><ol><li>in</li><li>side</li></ol></li></ul>
<blockquote><p>said</p></blockquote><hr><p>end
<code>c</code> <img src="i.png" alt="I"></p>"""

WRITTEN: Final = """## Head

Some *words*, **more** and `a < b`.
Next [there](https://example.org).

```
if a:

    b
```

* one
* two

  more

  1. in
  2. side

> said

---

end `c` ![I](i.png)"""


def _post(kind: int, number: int, body: str, **more: str | int) -> str:
    said = {"Id": number, "PostTypeId": kind, "Body": body, **more}
    return f"  <row {' '.join(f'{name}={quoteattr(str(value))}' for name, value in said.items())} />\n"


def stack_exchange() -> list[Known]:
    """Answers before and after their questions, by score and age; posts of other types; and a post without a body."""
    rows = [
        _post(2, 9, "<p>best</p>", ParentId=3, Score=5),
        _post(1, 3, POST, Title="T"),
        _post(1, 1, "<p>first</p>", Title="F"),
        _post(2, 4, "<p>younger</p>", ParentId=1, Score=2),
        _post(2, 2, "<p>elder</p>", ParentId=1, Score=2),
        _post(2, 6, "<p>worst</p>", ParentId=1, Score=-1),
        _post(5, 7, "<p>a wiki</p>"),
        _post(1, 8, "<p>nobody answers</p>", Title="N"),
    ]
    dump = f"<?xml version='1.0' encoding='utf-8'?>\n<posts>\n{''.join(rows)}</posts>".encode()
    name = "stack-exchange: Posts.xml question"
    third = (f"{name} 3", f"T\n\n{WRITTEN}\n\nbest")
    files = {"Posts.xml": dump, "Users.xml": b"<users />"}
    no_body = dump.replace(b' Body="&lt;p&gt;a wiki&lt;/p&gt;"', b"").replace(b'PostTypeId="5"', b'PostTypeId="1"')
    return [
        Known(files, [(f"{name} 1", "F\n\nfirst\n\nelder\n\nyounger\n\nworst"), third], left_out={"unanswered": 1}),
        Known(
            files,
            [(f"{name} 1", "F\n\nfirst\n\nelder"), third],
            {"answers": 1, "least_score": 2},
            {"unanswered": 1},
        ),
        Known(
            files,
            [(f"{name} 3", ((("user", f"T\n\n{POST}"), ("assistant", "<p>best</p>")),))],
            {"yields": "conversation", "body": "html", "least_score": 5},
            {"unanswered": 2},
        ),
        Known({"Posts.xml": no_body}, [], refused=("Posts.xml row 7", "Body")),
        Known({"Posts.xml": b"<users><row Id='1' /></users>"}, [], refused=("Posts.xml", "no posts")),
    ]


KNOWN: Final[dict[str, Callable[[], Sequence[Known]]]] = {
    "wikipedia-dump": wikipedia_dump,
    "warc": common_crawl,
    "wet": converted_pages,
    "stack-exchange": stack_exchange,
}
"""By the name of a format."""
