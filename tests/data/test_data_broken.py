"""What bad input gets: an error with file and place, or, where the config says so, a count; memory stays bounded."""

import tracemalloc

import pyarrow
import pytest
from corelm_data.jsonl import JsonLines
from corelm_data.markdown import Markdown
from corelm_data.parquet import Parquet
from corelm_data.reading import root_of
from corelm_data.source_code import SourceCode
from corelm_data.tables import SeparatedValues
from corelm_data.text_files import TextFiles
from pyarrow import parquet
from reading import build, read

from corelm.errors import UserError
from corelm.kinds import Text


@pytest.fixture(scope="module")
def long_line(tmp_path_factory):
    """A gigabyte without a line break, which takes no room on the disk."""
    path = tmp_path_factory.mktemp("long") / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n')
        file.truncate(10**9)
        file.seek(10**9)
        file.write(b'\n{"text": "after"}\n')
    return path


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        (JsonLines, {}, r":2: a line of more than 1,000,000 bytes"),
        (TextFiles, {"separator": "\n"}, r": a document of more than 1,000,000 characters"),
        (TextFiles, {}, r": a document of more than 1,000,000 characters"),
        (Markdown, {}, r": a document of more than 1,000,000 characters"),
        (SeparatedValues, {"header": ["text"]}, r": line 2: a line of more than 1,000,000 bytes"),
    ],
)
def test_a_gigabyte_on_one_line_is_refused_in_bounded_memory(part, options, message, long_line):
    place = {"path": str(long_line)} if part is JsonLines else {"paths": [str(long_line)]}
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"rows\.jsonl{message}"):
            read(part, longest=1_000_000, **options, **place)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_what_follows_a_line_that_is_too_long_comes_where_it_is_skipped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "before"}\n' + b"x" * 3_000_000 + b'\n{"text": "after"}\n' + b"y" * 2000)
    source = build(JsonLines, path=str(path), longest=1000, broken="skip")
    assert list(source.read()) == [Text("before", "jsonl: rows.jsonl:1"), Text("after", "jsonl: rows.jsonl:3")]
    assert source.report.left_out == {"line-too-long": 2}
    assert source.report.places == {"line-too-long": ["rows.jsonl:2", "rows.jsonl:4"]}
    path.write_bytes(b"x" * 20_000_000 + b"\n" + b'{"text": "after"}')
    tracemalloc.start()
    try:
        assert len(read(JsonLines, path=str(path), longest=1000, broken="skip")) == 1
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    exact = b'{"text": "%s"}' % (b"x" * 100)
    path.write_bytes(exact + b"\n" + exact)
    assert len(read(JsonLines, path=str(path), longest=len(exact) + 1)) == 2


def test_a_json_list_that_is_too_long_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "rows.json"
    content = b'[{"text": "%s"}]' % (b"x" * 100)
    path.write_bytes(content)
    assert len(read(JsonLines, path=str(path), longest=len(content))) == 1
    message = r"rows\.json: one list of more than 113 bytes, which is held in memory whole\n  Write it as lines"
    with pytest.raises(UserError, match=message) as caught:
        read(JsonLines, path=str(path), longest=len(content) - 1)
    assert caught.value.code == "file-too-long"
    source = build(JsonLines, path=str(path), longest=1, broken="skip")
    assert list(source.read()) == [] and source.report.left_out == {"file-too-long": 1}


def test_a_row_of_parquet_that_is_too_long_is_named_and_those_around_it_come(tmp_path):
    texts = [*(f"row {number}" for number in range(50)), "x" * 2_000_000, "after", "y" * 99_000]
    table = pyarrow.table({"prompt": texts, "response": ["short"] * len(texts)})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=52)
    options = {"yields": "conversation", "paths": [str(tmp_path)], "longest": 100_000}
    with pytest.raises(UserError, match=r"a\.parquet, row 50: a row of more than 100,000 bytes\n  Raise longest\."):
        read(Parquet, **options)
    source = build(Parquet, **options, broken="skip")
    kept = [record.messages[0].content for record in source.read()]
    assert kept == [text for text in texts if len(text) < 100_000]
    assert source.report.places == {"row-too-long": ["a.parquet, row 50"]}
    assert [r.messages[0].content for r in source.records(50)] == kept[50:]
    tracemalloc.start()
    try:
        list(build(Parquet, **options, broken="skip").records())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000, "the long row was made a string of"
    finally:
        tracemalloc.stop()


def test_mixed_encodings_are_named_or_counted_file_by_file(tmp_path):
    for name, content in {
        "a.txt": "café".encode(),
        "b.txt": "café".encode("latin-1"),
        "c.txt": "x".encode("utf-16"),
    }.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"b\.txt: not UTF-8 at byte 3"):
        read(TextFiles, paths=[str(tmp_path)])
    source = build(TextFiles, paths=[str(tmp_path)], broken="skip")
    assert [record.text for record in source.read()] == ["café"]
    assert source.report.left_out == {"not-utf8": 2}
    assert source.report.sentences("source text-files") == [
        "source text-files: left out as not-utf8: 2 (b.txt, c.txt)"
    ]


def test_a_refusal_says_how_to_go_on_without_the_record(tmp_path):
    (tmp_path / "a.jsonl").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:1: not JSON.*\n.*`broken: skip` leaves it out, and counts it\."):
        read(JsonLines, path=str(tmp_path))


def test_positions_count_the_records_that_came_not_those_that_were_skipped(tmp_path):
    for number in range(3):
        rows = [f'{{"text": "{number} {row}"}}' if (number + row) % 3 else "broken" for row in range(7)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    source = build(JsonLines, path=str(tmp_path), broken="skip")
    whole = list(source.records())
    assert len(whole) == 14
    assert all(list(source.records(start)) == whole[start:] for start in range(16))


def test_counts_add_up_over_readings_and_only_some_places_are_kept(tmp_path):
    (tmp_path / "a.jsonl").write_text("x\n" * 5 + '{"text": "y"}', encoding="utf-8")
    source = build(JsonLines, path=str(tmp_path), broken="skip")
    list(source.read())
    assert source.report.sentences() == ["left out as broken-line: 5 (a.jsonl:1, a.jsonl:2, a.jsonl:3 and 2 more)"]
    list(source.read())
    assert (source.report.records, source.report.left_out) == (2, {"broken-line": 10})


@pytest.mark.parametrize("part", [TextFiles, SourceCode])
def test_files_that_may_not_be_read_are_named(part, tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    whole = Path.open

    def refuse(self, *args, **options):
        if self.name == "a.py":
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a\.py: can't be read: Permission denied"):
        read(part, paths=[str(tmp_path)])
    with pytest.raises(UserError, match=r"a\.py: can't be read: Permission denied"):
        build(part, paths=[str(tmp_path)]).fingerprint()
    source = build(part, paths=[str(tmp_path)], broken="skip")
    assert list(source.read()) == []
    assert source.report.left_out == {"file-unreadable": 1}


def test_folders_are_read_by_ending_and_single_files_whatever_they_are_called(tmp_path):
    for name in ("a.jsonl", "b.txt", "sub/c.jsonl.gz", "sub/d.ndjson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'{"text": "x"}')
    import gzip

    (tmp_path / "sub/c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}'))
    names = [record.name for record in read(JsonLines, path=str(tmp_path))]
    assert names == ["jsonl: a.jsonl:1", "jsonl: sub/c.jsonl.gz:1", "jsonl: sub/d.ndjson:1"]
    assert len(read(JsonLines, path=str(tmp_path / "b.txt"))) == 1
    assert [r.name for r in read(JsonLines, path=str(tmp_path / "*" / "*.ndjson"))] == ["jsonl: sub/d.ndjson:1"]
    assert root_of(str(tmp_path / "*" / "*.ndjson")) == tmp_path
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"only: the folder holds no files ending in \.json, \.jsonl, \.ndjson\n"):
        read(JsonLines, path=str(tmp_path / "only"))
