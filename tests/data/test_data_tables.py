"""Parquet and CSV: columns, positions, quoting, and files that aren't what they should be."""

import csv
import io

import pyarrow
import pytest
from corelm_data.parquet import Parquet
from corelm_data.tables import SeparatedValues
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import ValidationError
from reading import build, read

from corelm.errors import UserError
from corelm.kinds import Conversation, Labelled, Message

PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def _parquet(path, group=3, **columns):
    parquet.write_table(pyarrow.table(columns), path, row_group_size=group)
    return str(path)


def test_only_the_columns_of_the_record_are_read(tmp_path, monkeypatch):
    path = _parquet(tmp_path / "a.parquet", body=["x", "y"], label=[0, 1], other=["a", "b"])
    asked = []
    whole = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches", lambda self, *args: (asked.append(args[2]), whole(self, *args))[1]
    )
    records = read(Parquet, paths=[path], yields="labelled", columns={"text": "body"})
    assert records == [Labelled("x", 0, "parquet: a.parquet, row 0"), Labelled("y", 1, "parquet: a.parquet, row 1")]
    assert asked == [["body", "label"]]


def test_row_groups_before_a_position_are_not_read(tmp_path, monkeypatch):
    path = _parquet(tmp_path / "a.parquet", text=[str(number) for number in range(10)])
    asked = []
    whole = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches", lambda self, *args: (asked.append(args[1]), whole(self, *args))[1]
    )
    assert [record.text for record in build(Parquet, paths=[path]).records(7)] == ["7", "8", "9"]
    assert asked == [[2], [3]]


def test_large_groups_come_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("corelm_data.parquet.BATCH_BYTES", 200)
    path = _parquet(tmp_path / "a.parquet", group=1000, text=[f"{number} {'x' * 20}" for number in range(100)])
    source = build(Parquet, paths=[path])
    whole = list(source.records())
    assert [int(record.text.split()[0]) for record in whole] == list(range(100))
    assert all(list(source.records(k)) == whole[k:] for k in (1, 37, 99))


def test_nested_columns_are_conversations(tmp_path):
    turns = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
    path = _parquet(tmp_path / "a.parquet", turns=turns)
    (record,) = read(Parquet, paths=[path], yields="conversation", columns={"messages": "turns"})
    assert record == Conversation((Message("user", "a"), Message("assistant", "b")), "parquet: a.parquet, row 0")


def test_another_schema_is_named_by_file_and_columns(tmp_path):
    _parquet(tmp_path / "a.parquet", text=["x"], more=[1])
    _parquet(tmp_path / "b.parquet", content=["x"])
    with pytest.raises(
        UserError, match=r"b\.parquet: another schema: it lacks text; its columns are content"
    ) as caught:
        read(Parquet, paths=[str(tmp_path)])
    assert caught.value.code == "other-schema"
    source = build(Parquet, paths=[str(tmp_path)], broken="skip")
    assert [record.text for record in source.read()] == ["x"]
    assert source.report.places == {"other-schema": ["b.parquet"]}
    _parquet(tmp_path / "b.parquet", text=[1])
    with pytest.raises(UserError, match=r"b\.parquet, row 0: column 'text': expected text, found int 1"):
        read(Parquet, paths=[str(tmp_path)])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100])
def test_what_is_no_parquet_is_named(content, tmp_path):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: broken off or damaged: "):
        read(Parquet, paths=[str(tmp_path)])


def test_damage_inside_of_a_group_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    _parquet(path, text=[f"{number} some words" for number in range(500)], group=500)
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"a\.parquet"):
        read(Parquet, paths=[str(path)])


@given(rows=st.lists(st.tuples(PARTS, PARTS), max_size=6), tab=st.booleans(), every=st.booleans(), end=st.booleans())
def test_what_the_library_writes_is_read_back(rows, tab, every, end, tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / ("a.tsv" if tab else "a.csv")
    written = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    writer = csv.writer(written, delimiter="\t" if tab else ",", quoting=quoting)
    writer.writerows([("text", "note"), *rows])
    path.write_bytes(written.getvalue().removesuffix("" if end else "\r\n").encode())
    assert [record.text for record in read(SeparatedValues, paths=[str(path)])] == [text for text, _ in rows]


def test_dialects_are_options(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("caf\xe9;1\n'a;''b';0\n".encode("cp1252"))
    options = {
        "delimiter": ";",
        "quote": "'",
        "header": ["text", "label"],
        "encoding": "cp1252",
        "yields": "labelled",
    }
    assert [(r.text, r.label) for r in read(SeparatedValues, paths=[str(path)], **options)] == [
        ("café", 1),
        ("a;'b", 0),
    ]
    path.write_bytes(b'text\n"a \\" b"\n')
    assert read(SeparatedValues, paths=[str(path)], escape="\\")[0].text == 'a " b'
    path.write_bytes(b'text\ta\n"quoted\tx\n')
    assert read(SeparatedValues, paths=[str(path)], delimiter="\t", quote=None)[0].text == '"quoted'


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        (b"text,b\nx,1\ny\n", r"a\.csv:3: 1 values for 2 columns", "broken-row"),
        (b'text\n"never closed\nand on\n', r"a\.csv: line 2: unexpected end of data", "broken-row"),
        (b"text\nx\xff\n", r"a\.csv: line 2: not UTF-8 at byte 1 of the line", "not-utf8"),
        (b"text,text\nx,y\n", r"a\.csv: line 1: two columns are named 'text'", "broken-file"),
        (b"body\nx\n", r"a\.csv:2: no column 'text'; the row has 'body'", "broken-row"),
        (b"text\n" + b"x" * 2000 + b"\n", r"a\.csv: line 2: a line of more than 1,000 bytes", "line-too-long"),
        (b'text\n"' + b"x\n" * 2000 + b'"\n', r"a\.csv: line 2: field larger than field limit", "broken-row"),
    ],
)
def test_broken_csv_is_named_by_file_and_line(content, message, code, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    before = csv.field_size_limit()
    with pytest.raises(UserError, match=message) as caught:
        read(SeparatedValues, paths=[str(tmp_path / "a.csv")], longest=1000)
    assert caught.value.code == code
    assert csv.field_size_limit() == before
    source = build(SeparatedValues, paths=[str(tmp_path / "a.csv")], longest=1000, broken="skip")
    kept = list(source.read())
    assert source.report.left_out == {code: 1}
    assert len(kept) <= 1


@pytest.mark.data
def test_published_tables_are_read(data):
    asked = {"yields": "conversation", "columns": {"prompt": "Question", "response": "Best Answer"}}
    assert len(read(SeparatedValues, paths=[str(data / "truthfulqa/TruthfulQA.csv")], **asked)) == 817
    path = data / "sms-spam/SMSSpamCollection.tsv"
    labelled = {"yields": "labelled", "header": ["label", "text"], "classes": ["ham", "spam"], "quote": None}
    records = read(SeparatedValues, paths=[str(path)], **labelled)
    assert len(records) == len(path.read_bytes().splitlines())
    assert {record.label for record in records} == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": '"'}, "different characters"),
        ({"delimiter": "\n"}, "none is a line break"),
        ({"quote": "''"}, "at most 1"),
        ({"header": ["a", "a"]}, "a name comes twice"),
        ({"columns": {"label": "x"}}, "has no field 'label'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        SeparatedValues.Config(paths=["a.csv"], **options)
