"""Sources: order, resumption, messages about broken input."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corelm_data import library, stdlib_docstrings
from corelm_data.hugging_face import HuggingFaceData
from corelm_data.jsonl import JsonLines
from corelm_data.python_stdlib import PythonLibrary, docstrings
from corelm_data.stdlib_docstrings import LibraryDocstrings, first_paragraph
from corelm_data.text_files import TextFiles
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corelm.errors import UserError
from corelm.kinds import Choice, Conversation, Labelled, Message, Preference, Text

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")


def build(part, /, **options):
    return part(part.Config(**options))


def read(part, /, **options):
    return list(build(part, **options).records())


# ---------------------------------------------------------------- every source


@pytest.fixture
def examples(tmp_path, small_library):
    """One of each source, on a little data."""
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree", encoding="utf-8")
    rows = [json.dumps({"text": f"row {number}"}) for number in range(7)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "rows.json").write_text(f"[{','.join(rows)}]", encoding="utf-8")
    return {
        "text-files": build(TextFiles, paths=[str(tmp_path / "a.txt")], separator="\n\n"),
        "jsonl": build(JsonLines, path=str(tmp_path / "rows.jsonl")),
        "json": build(JsonLines, path=str(tmp_path / "rows.json")),
        "hugging-face": build(HuggingFaceData, files=str(tmp_path / "rows.jsonl")),
        "python-stdlib": build(PythonLibrary, include=["code", "docstrings", "topics"]),
        "stdlib-docstrings": build(LibraryDocstrings, yields="choice"),
    }


NAMES = ["text-files", "jsonl", "json", "hugging-face", "python-stdlib", "stdlib-docstrings"]


_TEXTUAL = '''"""Tools for text."""


def wrap(text, width=70, *, tabs: int = 8) -> str:
    """Wrap one paragraph of text.

    More."""


class Wrapper:
    """Wrap text in a reusable way."""

    def fill(self, text):
        """fill(text) -> str

        Wrap and join the lines."""

    def _hidden(self):
        """Not for the public at all."""

    def short(self):
        """Too short."""
'''
_PACK = '''"""A package of things."""


def load(path):
    """Load a thing from a path."""


def save(path, thing):
    """Save a thing to a path."""


def copy(thing):
    """Copy a thing."""
'''


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of a few files."""
    root = tmp_path / "lib"
    files = {
        "textual.py": _TEXTUAL,
        "pack/__init__.py": _PACK,
        "pack/inner.py": 'def load(path):\n    """Load a thing from a path."""\n',
        "latin.py": "# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"),
        "broken.py": b"# -*- coding: utf-8 -*-\nname = '\xff'\n",
        "wrong.py": "def (:\n",
        "test/test_a.py": "tests",
        "pack/tests/test_b.py": "tests",
        "site-packages/other.py": "installed",
        "idlelib/run.py": "editor",
        "config-3.11-x86/made.py": "made",
        "_sysconfigdata_x.py": "made",
        "encodings/cp1.py": "table",
        "pydoc_data/topics.py": "topics = {'while': 'The while statement.', 'if': 'The if statement.'}\n",
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(library, "root", lambda: root)
    monkeypatch.setattr(stdlib_docstrings, "_mine", stdlib_docstrings._mine.__wrapped__)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_records_resume_at_any_position_and_say_where_they_are_from(name, examples):
    source = examples[name]
    whole = list(source.records())
    assert len(whole) >= 3
    assert list(source.records()) == whole
    for start in range(len(whole) + 2):
        assert list(source.records(start)) == whole[start:]
    assert len({record.name for record in whole}) == len(whole)
    assert all(record.name.startswith(name.replace("json", "jsonl") if name == "json" else name) for record in whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_fingerprint_is_that_of_the_data(name, examples, tmp_path):
    source = examples[name]
    before = source.fingerprint()
    assert source.fingerprint() == before
    target = {
        "text-files": "a.txt",
        "jsonl": "rows.jsonl",
        "json": "rows.json",
        "hugging-face": "rows.jsonl",
        "python-stdlib": "lib/textual.py",
        "stdlib-docstrings": "lib/textual.py",
    }[name]
    path = tmp_path / target
    path.write_bytes(path.read_bytes().replace(b"o", b"u"))
    assert source.fingerprint() != before


@pytest.mark.parametrize("name", NAMES)
def test_a_source_yields_what_it_says(name, examples):
    source = examples[name]
    expected = {"text": Text, "choice": Choice}[type(source).yields(source.config)]
    assert {type(record) for record in source.records()} == {expected}


# ---------------------------------------------------------------- python-stdlib


def test_the_library_is_its_own_files_sorted_without_what_is_left_out(small_library):
    names = [record.name.removeprefix("python-stdlib: ") for record in read(PythonLibrary, include=["code"])]
    assert names == ["latin.py", "pack/__init__.py", "pack/inner.py", "textual.py", "wrong.py"]
    texts = {record.name: record.text for record in read(PythonLibrary)}
    assert texts["python-stdlib: latin.py"].endswith("name = 'é'\n")
    assert texts["python-stdlib: topic if"] == "The if statement."


def test_notes_name_what_is_left_out_what_is_lacking_and_what_cannot_be_read(small_library, monkeypatch):
    monkeypatch.setattr(sys, "stdlib_module_names", frozenset({"textual", "pack", "no_such_module_here", "_private"}))
    first, lacking, unreadable = build(PythonLibrary).notes()
    for name in ("test", "site-packages", "idlelib", "config-*", "encodings", "pydoc_data", "_sysconfigdata*.py"):
        assert name in first
    assert "turtledemo" not in first
    assert "not installed here" in lacking
    assert lacking.endswith(": no_such_module_here")
    assert unreadable.endswith(": broken.py")


def test_the_real_library_is_there_and_whole():
    source = build(PythonLibrary)
    names = {record.name for record in source.records()}
    for expected in ("textwrap.py", "json/decoder.py", "asyncio/tasks.py", "topic assignment"):
        assert f"python-stdlib: {expected}" in names
    assert not any("/test" in name or "site-packages" in name for name in names)
    assert not any("can't be decoded" in note for note in source.notes())
    assert library.missing(library.root()) == [] or sys.platform != "linux" or "python3/dist" in str(sys.path)


def test_docstrings_alone_are_documents_too(small_library):
    texts = {record.name: record.text for record in read(PythonLibrary, include=["docstrings"])}
    assert texts["python-stdlib: textual.py (docstrings)"].startswith(
        "Tools for text.\n\nWrap one paragraph of text."
    )
    assert "python-stdlib: latin.py (docstrings)" not in texts
    assert docstrings("def (") == ""


@settings(max_examples=10, deadline=None)
@given(limit=st.integers(20_000, 900_000))
def test_a_sample_stays_within_its_limit_and_takes_whole_documents(limit):
    whole = {record.name: record.text for record in read(PythonLibrary, include=["topics"])}
    sample = read(PythonLibrary, include=["topics"], limit_bytes=limit)
    sizes = [len(record.text.encode()) for record in sample]
    assert sum(sizes) <= limit
    assert all(whole[record.name] == record.text for record in sample)
    left = [len(text.encode()) for name, text in whole.items() if name not in {record.name for record in sample}]
    assert not left or sum(sizes) + min(left) > limit


def test_a_python_without_source_files_is_refused(small_library, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(library, "root", lambda: tmp_path / "empty")
    with pytest.raises(UserError, match="comes without the source files of its standard library"):
        read(PythonLibrary)
    monkeypatch.undo()
    with pytest.raises(UserError, match="no document has 1 bytes or less"):
        read(PythonLibrary, include=["topics"], limit_bytes=1)


# ---------------------------------------------------------------- stdlib-docstrings


def test_questions_are_mined_with_their_signature(small_library):
    said = {record.name: record.messages for record in read(LibraryDocstrings)}
    user, assistant = said["stdlib-docstrings: textual.wrap"]
    assert user == Message("user", "What does `textual.wrap(text, width=70, *, tabs=8)` do?")
    assert assistant == Message("assistant", "Wrap one paragraph of text.")
    assert said["stdlib-docstrings: textual.Wrapper"][0].content == "What is `textual.Wrapper`?"
    fill = said["stdlib-docstrings: textual.Wrapper.fill"]
    assert [m.content for m in fill] == ["What does `textual.Wrapper.fill(text)` do?", "Wrap and join the lines."]
    assert not any(name.endswith(("_hidden", ".short", "inner.load")) for name in said)


def test_no_code_of_the_library_is_executed(small_library):
    (small_library / "bomb.py").write_text(
        'def f():\n    """Does a thing that matters."""\nraise SystemExit\n', encoding="utf-8"
    )
    assert "stdlib-docstrings: bomb.f" in {record.name for record in read(LibraryDocstrings)}
    assert "bomb" not in sys.modules


@pytest.mark.parametrize("yields", ["conversation", "preference", "choice", "text"])
def test_training_and_held_out_parts_share_nothing(yields):
    train, held, both = (read(LibraryDocstrings, yields=yields, part=part) for part in ("train", "holdout", "all"))
    assert len(held) > 100
    assert 0.07 < len(held) / len(both) < 0.13
    assert len({record.name for record in both}) == len(both)
    assert {r.name for r in train} | {r.name for r in held} == {r.name for r in both}
    assert not {r.name for r in train} & {r.name for r in held}
    assert not _answers(train) & _answers(held)


def _answers(records):
    found = set()
    for record in records:
        if isinstance(record, Conversation):
            found.add(record.messages[1].content)
        elif isinstance(record, Preference):
            found |= {record.chosen, record.rejected}
        elif isinstance(record, Choice):
            found |= set(record.endings)
        else:
            found.add(record.text.split("\n\n", 1)[1])
    return found


def test_membership_of_a_function_does_not_depend_on_the_others(small_library):
    before = {item.name: item.held_out for item in build(LibraryDocstrings)._chosen()}
    (small_library / "another.py").write_text('def f():\n    """Another function altogether."""\n', encoding="utf-8")
    (small_library / "pack/inner.py").unlink()
    after = {item.name: item.held_out for item in build(LibraryDocstrings)._chosen()}
    assert after.items() >= before.items()
    assert len(after) == len(before) + 1


def test_rejected_answers_are_another_functions_mostly_of_the_same_module():
    pairs = read(LibraryDocstrings, yields="preference", part="train")
    owner = {item.answer: item for item in build(LibraryDocstrings)._chosen()}
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert all(pair.prompt[-1].role == "user" for pair in pairs)
    same = [owner[pair.chosen].module == owner[pair.rejected].module for pair in pairs]
    assert sum(same) / len(same) > 0.95


@pytest.mark.parametrize("part", ["train", "holdout"])
def test_choices_have_four_different_endings_and_the_right_one_anywhere(part):
    choices = read(LibraryDocstrings, yields="choice", part=part)
    answers = {f"stdlib-docstrings: {item.name}": item.answer for item in build(LibraryDocstrings)._chosen()}
    for choice in choices:
        assert len(set(choice.endings)) == 4
        assert choice.endings[choice.gold] == answers[choice.name]
    count = len(choices)
    for place in range(4):
        share = sum(choice.gold == place for choice in choices) / count
        assert abs(share - 0.25) < 5 * (0.1875 / count) ** 0.5
    # The length gives nothing away: the shortest and the longest are right about a quarter of the time.
    for pick in (min, max):
        right = sum(len(c.endings[c.gold]) == pick(map(len, c.endings)) for c in choices) / count
        assert abs(right - 0.25) < 0.09


def test_a_choice_can_be_asked_as_a_question():
    code, question = (
        read(LibraryDocstrings, yields="choice", context=context)[0] for context in ("code", "question")
    )
    assert code.contexts[0].endswith(':\n    """')
    assert question.contexts[0].startswith("What ")
    assert code.endings == question.endings


@pytest.mark.parametrize("longest", [80, 300])
def test_question_and_answer_stay_within_their_bound(longest, monkeypatch):
    root = library.root()
    monkeypatch.setattr(library, "root", lambda: root / "asyncio")
    records = read(LibraryDocstrings, max_characters=longest)
    assert len(records) > 20
    for record in records:
        assert sum(len(message.content) for message in record.messages) <= longest
        assert "\n" not in record.messages[1].content


@pytest.mark.parametrize(
    ("docstring", "longest", "expected"),
    [
        ("One line of text.", 80, "One line of text."),
        ("One\n    line of\n    text.\n\n    More.", 80, "One line of text."),
        ("f(x) -> y\n\n    Says what it does.", 80, "Says what it does."),
        ("First sentence here. Second one is long.", 30, "First sentence here."),
        ("A sentence without an end that fits", 10, ""),
        ("Too short.", 80, ""),
        (">>> one two three", 80, ""),
        ("", 80, ""),
    ],
)
def test_the_first_paragraph_is_prose_on_one_line(docstring, longest, expected):
    assert first_paragraph(docstring, longest) == expected


def test_the_library_gives_the_same_records_under_every_hash_seed():
    script = (
        "from corelm_data.stdlib_docstrings import LibraryDocstrings as L\n"
        "import hashlib\n"
        "from corelm_data import library\n"
        "root = library.root()\n"
        "library.root = lambda: root / 'asyncio'\n"
        "print(hashlib.sha256(repr(list(L(L.Config(yields='choice')).records())).encode()).hexdigest())"
    )

    def run(seed):
        command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    assert run("0") == run("1")


# ---------------------------------------------------------------- text-files


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.text("ab|<\né\u2028😀", max_size=9), min_size=1, max_size=6),
    separator=st.sampled_from(["<|>", "||", "\n\n", "|"]),
    chunk=st.integers(1, 7),
)
def test_parts_are_those_of_the_whole_text_however_it_is_read(parts, separator, chunk, tmp_path_factory):
    text = "x" + separator.join(parts)
    path = tmp_path_factory.mktemp("t") / "a.txt"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corelm_data.text_files._CHUNK", chunk)
        found = [record.text for record in read(TextFiles, paths=[str(path)], separator=separator)]
        assert read(TextFiles, paths=[str(path)])[0].text == text
    assert found == [part.strip("\r\n") for part in text.split(separator) if part.strip()]


def test_a_file_that_is_split_is_not_held_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("corelm_data.text_files._CHUNK", 64)
    path = tmp_path / "a.txt"
    path.write_text("some words\n<|endoftext|>\n" * 1000, encoding="utf-8")
    consumed = 0
    from corelm_data import text_files

    whole = text_files._chunks

    def counted(path):
        nonlocal consumed
        for piece in whole(path):
            consumed += len(piece)
            yield piece

    monkeypatch.setattr(text_files, "_chunks", counted)
    records = build(TextFiles, paths=[str(path)], separator="<|endoftext|>").records()
    assert [next(records).text for _ in range(3)] == ["some words"] * 3
    assert consumed < 400


def test_paths_folders_and_globs_come_in_order_without_hidden_files_or_doubles(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.txt", ".hidden/x.txt", "sub/.secret"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    texts = lambda *paths: [r.text for r in read(TextFiles, paths=[str(tmp_path / path) for path in paths])]  # noqa: E731
    assert texts(".") == ["a.md", "b.txt", "sub/c.txt"]
    assert texts("**/*.txt") == ["b.txt", "sub/c.txt"]
    assert texts("sub", ".", "b.txt") == ["sub/c.txt", "a.md", "b.txt"]


def test_a_byte_order_mark_is_taken_off_and_line_ends_are_kept(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\xef\xbb\xbf")
    assert read(TextFiles, paths=[str(tmp_path / "a.txt")])[0].text == "one\r\ntwo\ufeff"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1 << 20])
@pytest.mark.parametrize(
    ("content", "offset"),
    [(b"abc\xff", 3), ("é😀".encode() + b"\xe9x", 6), (b"ok\xf0\x9f\x98", 2), (b"\xff\xfea\0", 0)],
)
def test_what_is_not_utf8_is_refused_with_the_byte(content, offset, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("corelm_data.text_files._CHUNK", chunk)
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"bad\.txt: not UTF-8 at byte {offset} \("):
        read(TextFiles, paths=[str(path)])


@pytest.mark.parametrize("content", [b"", b" \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("separator", [None, "|"])
def test_a_file_without_text_is_refused_by_name(content, separator, tmp_path):
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"empty\.txt: the file holds no text"):
        read(TextFiles, paths=[str(tmp_path / "empty.txt")], separator=separator)


@pytest.mark.parametrize("name", ["missing.txt", "*.none", "folder"])
def test_a_path_that_leads_nowhere_is_refused_by_name(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"no such file"):
        read(TextFiles, paths=[str(tmp_path / name)])


# ---------------------------------------------------------------- rows: jsonl and hugging-face

ROWS = [
    ("text", {}, {"text": "a"}, Text("a")),
    ("text", {"columns": {"text": "body"}}, {"body": "a", "text": 3}, Text("a")),
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
    ("labelled", {}, {"text": "t", "label": "spam"}, "column 'label': expected a whole number, found str 'spam'"),
    ("labelled", {}, {"text": "t", "label": True}, "expected a whole number, found bool"),
    ("labelled", {}, {"text": "t", "label": -1}, "a class is a number from 0 on, found -1"),
    ("labelled", {"classes": ["ham"]}, {"text": "t", "label": "spam"}, "'spam' is none of the classes ham"),
    ("choice", {}, {"context": "c", "endings": ["a", "b"], "gold": 2}, "2 is not the number of one of 2 endings"),
    ("choice", {}, {"context": ["c"] * 3, "endings": ["a", "b"], "gold": 0}, "3 contexts for 2 endings"),
    ("choice", {}, {"context": "c", "endings": [], "gold": 0}, "expected text or a list of texts, found list []"),
]


@pytest.mark.parametrize(("yields", "options", "row", "expected"), ROWS)
@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz", "parquet", "hf.jsonl"])
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
    return HuggingFaceData if path.suffix == ".parquet" or ".hf" in path.suffixes else JsonLines


def _place(part, path):
    return {"files": str(path)} if part is HuggingFaceData else {"path": str(path)}


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
    assert next(records) == Text("fine \u2028", f"jsonl: {path}:1")
    with pytest.raises(UserError) as caught:
        next(records)
    assert f"{path}:3: {message}" in str(caught.value)
    assert caught.value.code == "broken-line"


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
        ({"yields": "text", "classes": ["a"]}, "classes are for yields: labelled"),
        ({"yields": "labelled", "classes": ["a", "a"]}, "a name comes twice"),
        ({"yields": "poem"}, "text"),
    ],
)
def test_columns_that_make_no_sense_are_refused_before_anything_is_read(part, options, message, tmp_path):
    with pytest.raises(ValidationError, match=message):
        part.Config(**_place(part, tmp_path / "a.jsonl"), **options)


# ---------------------------------------------------------------- hugging-face


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


# ---------------------------------------------------------------- real files


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


@pytest.mark.data
@needs_data
def test_published_text_is_read():
    stories = read(TextFiles, paths=[str(DATA / "tinystories/*.txt")], separator="<|endoftext|>")
    text = (DATA / "tinystories/tinystories-sample.txt").read_text(encoding="utf-8")
    assert len(stories) == sum(bool(part.strip()) for part in text.split("<|endoftext|>"))
    with pytest.raises(UserError, match=r"UTF-8-test-restored\.txt: not UTF-8 at byte \d+"):
        read(TextFiles, paths=[str(DATA / "unicode-stress/UTF-8-test-restored.txt")])
