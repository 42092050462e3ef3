"""JSON lines and data sets: columns, and rows that are named when they are broken."""

import gzip
import json
import os
from pathlib import Path

import pytest
from corelm_data.hugging_face import HuggingFaceData
from corelm_data.jsonl import JsonLines
from corelm_data.parquet import Parquet
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reading import build, read

from corelm.errors import UserError
from corelm.kinds import Choice, Conversation, Labelled, Message, Preference, Text

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")


ROWS = [
    ("text", {}, {"text": "a"}, Text("a")),
    ("text", {"columns": {"text": "body"}}, {"body": "a", "text": 3}, Text("a")),
    ("text", {"columns": {"text": ["a", "b"]}}, {"b": "two", "a": "one"}, Text("one two")),
    (
        "conversation",
        {"columns": {"prompt": ["title", "body", "title"]}, "separator": "\n"},
        {"title": "t", "body": "b", "response": "r"},
        Conversation((Message("user", "t\nb\nt"), Message("assistant", "r"))),
    ),
    (
        "conversation",
        {},
        {"prompt": "p", "response": "r"},
        Conversation((Message("user", "p"), Message("assistant", "r"))),
    ),
    (
        "conversation",
        {"columns": {"prompt": "instruction", "response": "output"}},
        {"instruction": "p", "input": "i", "output": "r"},
        Conversation((Message("user", "p\n\ni"), Message("assistant", "r"))),
    ),
    (
        "conversation",
        {},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        Conversation((Message("system", "s"), Message("user", "u"))),
    ),
    (
        "preference",
        {},
        {"system": "s", "prompt": "p", "input": "", "chosen": "c", "rejected": "r"},
        Preference((Message("system", "s"), Message("user", "p")), "c", "r"),
    ),
    (
        "conversation",
        {
            "columns": {"messages": "conversations"},
            "turn": {"role": "from", "content": "value"},
            "roles": {"human": "user", "gpt": "assistant"},
        },
        {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]},
        Conversation((Message("user", "u"), Message("assistant", "a"))),
    ),
    (
        "preference",
        {},
        {
            "prompt": "p",
            "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
            "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}],
        },
        Preference((Message("user", "p"),), "c", "r"),
    ),
    (
        "preference",
        {},
        {
            "prompt": "p",
            "chosen": [{"role": "assistant", "content": "c"}],
            "rejected": [{"role": "assistant", "content": "r"}],
        },
        Preference((Message("user", "p"),), "c", "r"),
    ),
    ("labelled", {}, {"text": "t", "label": 2}, Labelled("t", 2)),
    ("labelled", {"classes": ["ham", "spam"]}, {"text": "t", "label": "spam"}, Labelled("t", 1)),
    ("choice", {}, {"context": "c", "endings": ["a", "b"], "gold": "1"}, Choice(("c",), ("a", "b"), 1)),
    (
        "choice",
        {"columns": {"context": "options", "endings": "continuation"}},
        {"options": ["c", "d"], "continuation": "e", "gold": 0},
        Choice(("c", "d"), ("e", "e"), 0),
    ),
    ("choice", {}, {"context": "c", "endings": "e"}, Choice(("c",), ("e",), 0)),
]
BROKEN = [
    ("text", {}, {"txt": "a"}, "no column 'text'; the row has 'txt'"),
    ("text", {}, {"text": 3}, "column 'text': expected text, found int 3"),
    ("text", {}, {"text": None}, "column 'text': expected text, found NoneType None"),
    ("conversation", {}, {"prompt": "p"}, "no column 'response'"),
    ("conversation", {"columns": {"input": "more"}}, {"prompt": "p", "response": "r"}, "no column 'more'"),
    ("text", {"columns": {"text": ["a", "b"]}}, {"a": "one"}, "no column 'b'; the row has 'a'"),
    ("text", {"columns": {"text": ["a", "b"]}}, {"a": "one", "b": 2}, "column 'b': expected text, found int 2"),
    ("conversation", {}, {"messages": []}, "column 'messages': expected a list of turns"),
    (
        "conversation",
        {},
        {"messages": [{"role": "robot", "content": "x"}]},
        "turn 0: expected {role: system, user or",
    ),
    (
        "conversation",
        {},
        {"messages": [{"role": "user", "content": 1}]},
        "turn 0, content: expected text, found int 1",
    ),
    (
        "conversation",
        {"roles": {"bot": "assistant"}},
        {"messages": [{"role": "robot", "content": "x"}]},
        "turn 0: expected {role: system, user, assistant or bot, content}",
    ),
    (
        "preference",
        {},
        {"prompt": "p", "chosen": [{"role": "user", "content": "p"}], "rejected": "r"},
        "column 'chosen': the last turn is the answer, but it is the user's",
    ),
    (
        "preference",
        {},
        {
            "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}],
        },
        "the two answers come after different turns",
    ),
    ("labelled", {}, {"text": "t", "label": "spam"}, "column 'label': expected a whole number, found str 'spam'"),
    ("labelled", {}, {"text": "t", "label": True}, "expected a whole number, found bool"),
    ("labelled", {}, {"text": "t", "label": -1}, "a class is a number from 0 on, found -1"),
    ("labelled", {"classes": ["ham"]}, {"text": "t", "label": "spam"}, "'spam' is none of the classes ham"),
    ("choice", {}, {"context": "c", "endings": ["a", "b"], "gold": 2}, "2 is not the number of one of 2 endings"),
    ("choice", {}, {"context": ["c"] * 3, "endings": ["a", "b"], "gold": 0}, "3 contexts for 2 endings"),
    ("choice", {}, {"context": "c", "endings": [], "gold": 0}, "expected text or a list of texts, found list []"),
]


@pytest.mark.parametrize(("yields", "options", "row", "expected"), ROWS)
@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz", "parquet", "hf.parquet", "hf.jsonl"])
def test_rows_become_records(yields, options, row, expected, ending, tmp_path):
    path = tmp_path / f"rows.{ending}"
    part = _write(path, [row])
    (record,) = read(part, **_place(part, path), yields=yields, **options)
    assert type(record)(**{**vars(record), "name": ""}) == expected


@pytest.mark.parametrize(("yields", "options", "row", "message"), BROKEN)
@pytest.mark.parametrize("ending", ["jsonl", "json", "hf.jsonl"])
def test_a_row_that_is_no_such_record_is_named_with_the_reason(yields, options, row, message, ending, tmp_path):
    path = tmp_path / f"rows.{ending}"
    part = _write(path, [row])
    with pytest.raises(UserError) as caught:
        read(part, **_place(part, path), yields=yields, **options)
    assert message in str(caught.value)
    assert {"jsonl": f"{path}:1: ", "json": f"{path}: row 1: ", "hf.jsonl": f"{path} [train], row 0: "}[
        ending
    ] in str(caught.value)


def _write(path, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(lines, encoding="utf-8")
    if ".hf" in path.suffixes:
        return HuggingFaceData
    return Parquet if path.suffix == ".parquet" else JsonLines


def _place(part, path):
    if part is HuggingFaceData:
        return {"files": str(path)}
    return {"paths": [str(path)]} if part is Parquet else {"path": str(path)}


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=5),
    ascii_only=st.booleans(),
)
def test_any_text_survives_a_line_of_json(texts, ascii_only, tmp_path_factory):
    path = tmp_path_factory.mktemp("j") / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    assert [record.text for record in read(JsonLines, path=str(path))] == texts


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', "not JSON: Expecting ',' delimiter at column 13"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 10 of the line"),
        (b"[1]", "expected an object with named values, found list [1]"),
        (b'{"text": "\\ud800"}', "column 'text': half of a surrogate pair at character 0"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(line, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "fine \xe2\x80\xa8"}\n\n' + line + b'\n{"text": "after"}\n')
    records = build(JsonLines, path=str(path)).records()
    assert next(records) == Text("fine \u2028", "jsonl: rows.jsonl:1")
    with pytest.raises(UserError) as caught:
        next(records)
    assert f"{path}:3: {message}" in str(caught.value)
    assert caught.value.code == ("not-utf8" if "UTF-8" in message else "broken-line")


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_gzipped_file_that_is_broken_off_is_never_a_short_one(cut, tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    rows = [json.dumps({"text": f"{number} {'x' * number}"}) for number in range(300)]
    path.write_bytes(gzip.compress("\n".join(rows).encode())[:-cut])
    with pytest.raises(UserError, match=r"rows\.jsonl\.gz: broken off or damaged after line \d+"):
        read(JsonLines, path=str(path))
    path.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="broken off or damaged after line 0"):
        read(JsonLines, path=str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n x]', "not JSON: Expecting value at line 2, column 2"),
        ('{"text": "a"}', "expected one list of objects, found dict"),
    ],
)
def test_a_broken_json_list_is_named(content, message, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(JsonLines, path=str(path))
    assert f"{path}: {message}" in str(caught.value)


@pytest.mark.parametrize("part", [JsonLines, HuggingFaceData])
def test_a_file_that_is_not_there_is_named(part, tmp_path):
    for name in ("missing.jsonl", "missing.json"):
        with pytest.raises(UserError, match=r"missing\.jsonl?: (can't be read: No such file|no such file or folder)"):
            read(part, **_place(part, tmp_path / name))
        with pytest.raises(UserError, match="missing"):
            build(part, **_place(part, tmp_path / name)).fingerprint()


@pytest.mark.parametrize("part", [JsonLines, HuggingFaceData])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"prompt": "x"}}, "a record of type text has no field 'prompt'; fields: text"),
        ({"columns": {"text": ["one"]}}, "at least 2 items"),
        ({"yields": "labelled", "columns": {"label": ["a", "b"]}}, "columns: label is read from one column"),
        ({"yields": "text", "classes": ["a"]}, "classes are for yields: labelled"),
        ({"yields": "labelled", "classes": ["a", "a"]}, "a name comes twice"),
        ({"yields": "poem"}, "text"),
    ],
)
def test_columns_that_make_no_sense_are_refused_before_anything_is_read(part, options, message, tmp_path):
    with pytest.raises(ValidationError, match=message):
        part.Config(**_place(part, tmp_path / "a.jsonl"), **options)


def test_folders_of_parquet_and_csv_are_read(tmp_path):
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "p").mkdir()
    for number in range(2):
        table = pyarrow.table({"text": [f"{number} {row}" for row in range(3)]})
        parquet.write_table(table, tmp_path / "p" / f"train-{number}.parquet")
    texts = [record.text for record in read(HuggingFaceData, files=str(tmp_path / "p"))]
    assert texts == ["0 0", "0 1", "0 2", "1 0", "1 1", "1 2"]
    (tmp_path / "t.csv").write_text('text,label\n"a, b",1\nc,0\n', encoding="utf-8")
    labelled = read(HuggingFaceData, files=str(tmp_path / "t.csv"), yields="labelled")
    assert [(record.text, record.label) for record in labelled] == [("a, b", 1), ("c", 0)]


def test_a_place_must_be_named_and_only_one():
    for options in ({}, {"path": "a/b", "files": "/c"}, {"files": "/c", "revision": "main"}):
        with pytest.raises(ValidationError, match="either path|revision is for"):
            HuggingFaceData.Config(**options)


def test_what_the_library_cannot_read_is_the_users_to_mend(tmp_path, monkeypatch):
    (tmp_path / "a.xyz").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="not a file of a known format"):
        read(HuggingFaceData, files=str(tmp_path / "a.xyz"))
    (tmp_path / "a.parquet").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.parquet \[train\]: "):
        read(HuggingFaceData, files=str(tmp_path / "a.parquet"))
    (tmp_path / "a.csv").write_text("text\nx\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"\[nosplit\]: .*nosplit"):
        read(HuggingFaceData, files=str(tmp_path / "a.csv"), split="nosplit")


def test_a_name_on_the_hub_reaches_the_library_as_it_is(monkeypatch):
    asked = {}

    class Rows(list):
        def skip(self, start):
            return self[start:]

    class Library:
        @staticmethod
        def load_dataset(**options):
            asked.update(options)
            return Rows([{"text": "a"}, {"text": "b"}])

        @staticmethod
        def load_dataset_builder(**options):
            raise ConnectionError("no network here")

    monkeypatch.setattr("corelm_data.hugging_face._library", lambda: Library)
    source = build(HuggingFaceData, path="owner/set", name="en", split="validation", revision="abc")
    assert list(source.records(1)) == [Text("b", "hugging-face: owner/set [validation], row 1")]
    expected = {"path": "owner/set", "name": "en", "split": "validation", "revision": "abc", "streaming": True}
    assert asked == expected
    with pytest.raises(UserError, match=r"owner/set \[validation\]: ConnectionError: no network here"):
        source.fingerprint()


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("path", "options", "count"),
    [
        ("web-and-wiki/c4_demo.jsonl", {}, 300),
        (
            "hellaswag/hellaswag_val_1000.jsonl",
            {"yields": "choice", "columns": {"context": "ctx", "gold": "label"}},
            1000,
        ),
        (
            "choice-tasks/piqa_val.jsonl",
            {"yields": "choice", "columns": {"context": "query", "endings": "choices"}},
            1838,
        ),
        (
            "choice-tasks/winogrande_val.jsonl",
            {"yields": "choice", "columns": {"context": "context_options", "endings": "continuation"}},
            1267,
        ),
        ("lambada/lambada_openai.jsonl", {"yields": "choice", "columns": {"endings": "continuation"}}, 5153),
        ("lambada/lambada_openai.jsonl", {"columns": {"text": ["context", "continuation"]}}, 5153),
        (
            "gsm8k/train_first200.jsonl",
            {"yields": "conversation", "columns": {"prompt": "question", "response": "answer"}},
            200,
        ),
        (
            "instruction-rasbt/instruction-data.json",
            {"yields": "conversation", "columns": {"prompt": "instruction", "response": "output"}},
            1100,
        ),
        (
            "preference-rasbt/instruction-data-with-preference.json",
            {"yields": "preference", "columns": {"prompt": "instruction"}},
            1100,
        ),
        ("humaneval/HumanEval.jsonl.gz", {"columns": {"text": "prompt"}}, 164),
    ],
)
def test_published_files_are_read(path, options, count):
    assert len(read(JsonLines, path=str(DATA / path), **options)) == count
