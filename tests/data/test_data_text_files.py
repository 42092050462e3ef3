"""Plain text files: cutting, order, messages about broken input."""

import os
from pathlib import Path

import pytest
from corelm_data.text_files import TextFiles
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import build, read

from corelm.errors import UserError

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORELM_DATA is not there")


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


@pytest.mark.parametrize("chunk", [1, 2, 4, 1 << 20])
def test_a_byte_order_mark_is_taken_off_and_line_ends_are_kept(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("corelm_data.text_files._CHUNK", chunk)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfone\r\ntwo\xef\xbb\xbf")
    assert read(TextFiles, paths=[str(tmp_path / "a.txt")])[0].text == "\ufeffone\r\ntwo\ufeff"


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.txt", r"missing\.txt: no such file or folder"),
        ("*.none", r"\.none: no such file or folder"),
        ("folder", "folder: the folder holds no files"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_by_name(name, message, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=message):
        read(TextFiles, paths=[str(tmp_path / name)])


@pytest.mark.data
@needs_data
def test_published_text_is_read():
    stories = read(TextFiles, paths=[str(DATA / "tinystories/*.txt")], separator="<|endoftext|>")
    text = (DATA / "tinystories/tinystories-sample.txt").read_text(encoding="utf-8")
    assert len(stories) == sum(bool(part.strip()) for part in text.split("<|endoftext|>"))
    with pytest.raises(UserError, match=r"UTF-8-test-restored\.txt: not UTF-8 at byte \d+"):
        read(TextFiles, paths=[str(DATA / "unicode-stress/UTF-8-test-restored.txt")])
