"""Digests of files: right at every moment, and read no oftener than needed."""

import os
import sqlite3
import time

import pytest
from corelm_data import digests


@pytest.fixture
def reads(tmp_path, monkeypatch):
    """A book of its own, and how often files were read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "WORTH", 10)
    count, whole = [], digests._read
    monkeypatch.setattr(digests, "_read", lambda path: (count.append(path.name), whole(path))[1])
    return count


def _old(path, content):
    """A file that was last changed when the clock showed two seconds less."""
    path.write_bytes(content)
    return digests._state(path)


def test_a_file_is_read_once_as_long_as_it_stays_as_it_is(tmp_path, reads, monkeypatch):
    path = tmp_path / "a.bin"
    _old(path, b"0123456789" * 3)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 3 * 10**9)
    first = digests.content(path)
    assert digests.content(path) == first
    assert reads == ["a.bin"]
    written = path.stat().st_mtime_ns
    path.write_bytes(b"9876543210" * 3)
    os.utime(path, ns=(written, written))  # the time of content is set back; that of the inode can't be
    assert digests.content(path) != first
    assert reads == ["a.bin", "a.bin"]


@pytest.mark.parametrize("age", [-1, 0, 1])
def test_what_has_just_been_written_is_not_trusted(age, tmp_path, reads, monkeypatch):
    path = tmp_path / "a.bin"
    state = _old(path, b"0123456789" * 3)
    monkeypatch.setattr(digests, "_state", lambda path: state)  # a clock too coarse to show the change
    monkeypatch.setattr(time, "time_ns", lambda: state[-1] + age * 10**9)
    before = digests.content(path)
    path.write_bytes(b"9876543210" * 3)
    assert digests.content(path) != before
    assert len(reads) == 2


def test_what_changes_while_it_is_read_is_not_written_down(tmp_path, reads, monkeypatch):
    path = tmp_path / "a.bin"
    _old(path, b"0123456789" * 3)
    old, now = digests._state(path), time.time_ns() + 5 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    state, whole = [old], digests._read
    monkeypatch.setattr(digests, "_state", lambda path: state[0])
    monkeypatch.setattr(
        digests, "_read", lambda path: (state.__setitem__(0, (*old[:-1], old[-1] + 1)), whole(path))[1]
    )
    digests.content(path)
    state[0] = old
    digests.content(path)
    assert len(reads) == 2


def test_small_files_are_simply_read_and_names_count(tmp_path, reads):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"small")
    one = digests.digest([("a", tmp_path / "a"), ("b", tmp_path / "b")])
    assert one != digests.digest([("b", tmp_path / "a"), ("a", tmp_path / "b")])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("trouble", [sqlite3.OperationalError("locked"), PermissionError("read-only")])
def test_without_a_book_files_are_read_again(tmp_path, reads, monkeypatch, trouble):
    def refuse():
        raise trouble

    monkeypatch.setattr(digests, "_book", refuse)
    path = tmp_path / "a.bin"
    _old(path, b"0123456789" * 3)
    assert digests.content(path) == digests.content(path)
    assert len(reads) == 2
