"""Web archives: pages and their encodings, and lengths that lie."""

import gzip
import re
import zlib
from io import BytesIO

import pytest
from corelm_data.common_crawl import CommonCrawl, CommonCrawlText
from corelm_data.web_pages import decoded_html
from reading import build, read
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corelm.errors import UserError

PAGE = "<p>naïve café</p>"


def _warc(path, *records, packed=False):
    """Write records of (type, headers of HTTP or None, content)."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=packed)
        for number, (kind, headers, content) in enumerate(records):
            http = None
            if headers is not None:
                status, *fields = headers
                http = StatusAndHeaders(status, fields, protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(f"https://example.org/{number}", kind, BytesIO(content), http_headers=http)
            )
    return str(path)


def _response(content, *fields, status="200 OK", kind="text/html"):
    return ("response", (status, ("Content-Type", kind), *fields), content)


@pytest.mark.parametrize("packed", [False, True])
def test_responses_that_are_pages_are_documents(packed, tmp_path):
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    _warc(
        path,
        ("request", ("GET / HTTP/1.1",), b""),
        _response(PAGE.encode()),
        ("metadata", None, b"fetched"),
        _response(b"gone", status="404 Not Found"),
        _response(b"\x89PNG", kind="image/png"),
        ("revisit", None, b""),
        _response(PAGE.encode(), kind="application/xhtml+xml; charset=utf-8"),
        packed=packed,
    )
    source = build(CommonCrawl, paths=[str(path)])
    records = list(source.read())
    assert [record.text for record in records] == [PAGE, PAGE]
    assert [record.name for record in records] == [
        f"warc: {path.name} record 2 https://example.org/1",
        f"warc: {path.name} record 7 https://example.org/6",
    ]
    assert source.report.left_out == {"status": 1, "content-type": 1, "revisit": 1}
    assert list(source.records(1)) == records[1:]


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (PAGE.encode("cp1252"), "text/html; charset=ISO-8859-1", PAGE),
        ("<p>“quoted”</p>".encode("cp1252"), "text/html; charset=iso-8859-1", "<p>“quoted”</p>"),
        (b'<meta charset="koi8-r">' + "слово".encode("koi8-r"), "text/html", '<meta charset="koi8-r">слово'),
        (b"\xef\xbb\xbf" + PAGE.encode(), "text/html; charset=latin-1", PAGE),
        (PAGE.encode("utf-16"), "text/html", PAGE),
        ("日本語のページ".encode("shift_jis"), 'text/html; charset="Shift_JIS"', "日本語のページ"),
        (PAGE.encode(), "text/html; charset=no-such-thing", PAGE),
        (PAGE.encode(), "text/html; charset=ascii-and-more", PAGE),
    ],
)
def test_encodings_are_found_as_browsers_find_them(content, kind, expected):
    assert decoded_html(content, kind) == expected


@pytest.mark.parametrize(
    ("coding", "content"),
    [
        ("gzip", gzip.compress(PAGE.encode(), mtime=0)),
        ("deflate", zlib.compress(PAGE.encode())),
        ("deflate", zlib.compress(PAGE.encode())[2:-4]),
        ("identity", PAGE.encode()),
    ],
)
def test_transfer_and_content_codings_are_undone(coding, content, tmp_path):
    _warc(tmp_path / "a.warc", _response(content, ("Content-Encoding", coding)))
    assert read(CommonCrawl, paths=[str(tmp_path)])[0].text == PAGE
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    _warc(
        tmp_path / "a.warc",
        _response(chunked, ("Content-Encoding", coding), ("Transfer-Encoding", "chunked")),
    )
    assert read(CommonCrawl, paths=[str(tmp_path)])[0].text == PAGE


def test_codings_that_are_unknown_or_damaged_are_named(tmp_path):
    for coding, content, message in (
        ("br", b"x", "content encoded as br"),
        ("gzip", gzip.compress(PAGE.encode(), mtime=0)[:-9], "damaged gzip"),
        ("gzip", b"plain", "damaged gzip"),
        ("gzip", gzip.compress(b"0" * 10_000_000, mtime=0), "damaged gzip: it breaks off, or is too long"),
    ):
        _warc(tmp_path / "a.warc", _response(content, ("Content-Encoding", coding)), _response(b"<p>next</p>"))
        with pytest.raises(UserError, match=rf"a\.warc record 1 https://example\.org/0: {message}"):
            read(CommonCrawl, paths=[str(tmp_path)], longest=100_000)
        source = build(CommonCrawl, paths=[str(tmp_path)], longest=100_000, broken="skip")
        assert [record.text for record in source.read()] == ["<p>next</p>"]
        assert sum(source.report.left_out.values()) == 1


def _lie(path, by, record=0):
    """Change the length that a record states."""
    content = path.read_bytes()
    place = 0
    for _ in range(record + 1):
        place = content.index(b"Content-Length: ", place) + 16
    end = content.index(b"\r\n", place)
    length = int(content[place:end]) + by
    path.write_bytes(content[:place] + str(length).encode() + content[end:])


@pytest.mark.parametrize("by", [-5, -1, 1, 3, 40, 100_000])
@pytest.mark.parametrize("record", [0, 2])
@pytest.mark.parametrize("digests", [True, False])
def test_a_length_that_lies_is_named(by, record, digests, tmp_path):
    path = tmp_path / "a.warc.wet"
    _warc(path, *[("conversion", None, f"page {number}\nand a line".encode()) for number in range(3)])
    if not digests:
        path.write_bytes(re.sub(rb"WARC-(Block|Payload)-Digest: [^\n]*\n", b"", path.read_bytes()))
    _lie(path, by, record)
    if by in (1, 3) and not digests:
        # What is taken too much are line breaks between records, and no letter is lost.
        assert [r.text.rstrip() for r in read(CommonCrawlText, paths=[str(path)])] == [
            f"page {number}\nand a line" for number in range(3)
        ]
        return
    with pytest.raises(UserError, match=r"a\.warc\.wet.*record") as caught:
        read(CommonCrawlText, paths=[str(path)])
    assert caught.value.code in ("archive-broken", "digest-wrong")
    source = build(CommonCrawlText, paths=[str(path)], broken="skip")
    kept = [record.text for record in source.read()]
    assert kept[:record] == [f"page {number}\nand a line" for number in range(record)]
    assert len(kept) <= 3
    assert sum(source.report.left_out.values()) >= 1


@pytest.mark.parametrize("keep", [30, 100, 250, 400, -1, -4])
def test_an_archive_that_breaks_off_is_named_wherever_it_does(keep, tmp_path, capsys):
    path = tmp_path / "a.warc"
    _warc(path, _response(PAGE.encode() * 10), _response(PAGE.encode() * 10))
    whole = path.read_bytes()
    cut = whole[:keep]
    path.write_bytes(cut)
    if whole.startswith(cut) and whole[len(cut) :].strip() == b"":
        assert len(read(CommonCrawl, paths=[str(path)])) == 2  # only the line breaks at the end are lacking
    else:
        with pytest.raises(UserError, match=r"a\.warc: record \d: "):
            read(CommonCrawl, paths=[str(path)])
    assert capsys.readouterr().err == ""


def test_content_that_is_not_what_its_digest_says_is_named(tmp_path):
    path = tmp_path / "a.warc.wet"
    _warc(path, ("conversion", None, b"the cat"), ("conversion", None, b"the dog"))
    path.write_bytes(path.read_bytes().replace(b"the cat", b"the cow"))
    with pytest.raises(UserError, match="its digest isn't that of its content"):
        read(CommonCrawlText, paths=[str(path)])
    source = build(CommonCrawlText, paths=[str(path)], broken="skip")
    assert [record.text for record in source.read()] == ["the dog"]
    assert source.report.left_out == {"digest-wrong": 1}


def test_empty_archives_and_empty_records(tmp_path):
    (tmp_path / "a.warc.wet").write_bytes(b"")
    assert read(CommonCrawlText, paths=[str(tmp_path)]) == []
    _warc(tmp_path / "a.warc.wet", ("conversion", None, b" \n"))
    with pytest.raises(UserError, match="it holds no text"):
        read(CommonCrawlText, paths=[str(tmp_path)])
    (tmp_path / "a.warc.wet").write_bytes(b"<html>no archive</html>")
    with pytest.raises(UserError, match=r"a\.warc\.wet: record 0: "):
        read(CommonCrawlText, paths=[str(tmp_path)])


def test_an_archive_in_one_gzip_member_is_read_too(tmp_path):
    _warc(tmp_path / "a.warc", ("conversion", None, b"one"), ("conversion", None, b"two"))
    path = tmp_path / "b.warc.wet.gz"
    path.write_bytes(gzip.compress((tmp_path / "a.warc").read_bytes()))
    assert [record.text for record in read(CommonCrawlText, paths=[str(path)])] == ["one", "two"]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match=r"b\.warc\.wet\.gz.*broken off or damaged"):
        read(CommonCrawlText, paths=[str(path)])
