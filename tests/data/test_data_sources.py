"""What every source must hold: order, resumption, fingerprints."""

import json

import pytest
from corelm_data.hugging_face import HuggingFaceData
from corelm_data.jsonl import JsonLines
from corelm_data.python_stdlib import PythonLibrary
from corelm_data.stdlib_docstrings import LibraryDocstrings
from corelm_data.text_files import TextFiles
from reading import build

from corelm.kinds import Choice, Text


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
