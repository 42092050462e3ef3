"""Compressed files: unpacked as a stream, and never a short one."""

import bz2
import gzip
import io
import lzma
import tracemalloc
import zlib

import pytest
import zstandard
from corelm_data.compressed import Damaged, opened, plain_suffix
from corelm_data.jsonl import JsonLines
from corelm_data.text_files import TextFiles
from hypothesis import given
from hypothesis import strategies as st
from reading import build, read

from corelm.errors import UserError

PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_content_size=False).compress,
}
LINES = b"".join(b"%d %x\n" % (number, zlib.crc32(b"%d" % number)) for number in range(20_000))


def _whole(path):
    with opened(path) as file:
        return file.read()


@pytest.mark.parametrize("ending", PACK)
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), padding=st.integers(0, 3))
def test_members_one_after_the_other_are_one_file(ending, parts, padding, tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / f"a{ending}"
    path.write_bytes(b"".join(map(PACK[ending], parts)) + b"\0" * padding)
    assert _whole(path) == b"".join(parts)


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("cut", [1, 5, 100, 10_000])
def test_a_file_that_breaks_off_is_an_error_not_an_end(ending, cut, tmp_path):
    packed = PACK[ending](LINES)
    path = tmp_path / f"a{ending}"
    path.write_bytes(packed[:-cut])
    with pytest.raises(Damaged):
        _whole(path)


@pytest.mark.parametrize("ending", PACK)
def test_damage_behind_the_first_member_is_an_error_too(ending, tmp_path):
    first, second = PACK[ending](LINES[:1000]), bytearray(PACK[ending](LINES))
    second[0] ^= 0xFF
    path = tmp_path / f"a{ending}"
    path.write_bytes(first + bytes(second))
    with pytest.raises(Damaged):
        _whole(path)


@pytest.mark.parametrize("ending", PACK)
def test_an_empty_file_is_no_compressed_file(ending, tmp_path):
    (tmp_path / f"a{ending}").write_bytes(b"")
    with pytest.raises(Damaged, match="break off"):
        _whole(tmp_path / f"a{ending}")


@pytest.mark.parametrize(("ending", "most"), [(".gz", 2), (".bz2", 8), (".xz", 12), (".zst", 48)])
def test_no_more_is_unpacked_than_is_read(ending, most, tmp_path):
    path = tmp_path / f"a{ending}"
    path.write_bytes(PACK[ending](b"0" * (64 << 20)))
    tracemalloc.start()
    try:
        with opened(path) as file:
            assert file.readline(1000) == b"0" * 1000
        assert tracemalloc.get_traced_memory()[1] < most << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", PACK)
def test_sources_read_compressed_files_and_name_those_that_break_off(ending, tmp_path):
    path = tmp_path / f"rows.jsonl{ending}"
    rows = b"".join(b'{"text": "%d %x"}\n' % (n, zlib.crc32(b"%d" % n)) for n in range(3000))
    path.write_bytes(PACK[ending](rows))
    assert len(read(JsonLines, path=str(path))) == 3000
    assert read(TextFiles, paths=[str(path)])[0].text == rows.decode()
    path.write_bytes(PACK[ending](rows)[:-9])
    with pytest.raises(UserError, match=rf"rows\.jsonl\{ending}: broken off or damaged after line \d+") as caught:
        read(JsonLines, path=str(path))
    assert caught.value.code == "file-truncated"
    with pytest.raises(UserError, match=rf"rows\.jsonl\{ending}: broken off or damaged"):
        read(TextFiles, paths=[str(path)])
    path.write_bytes(PACK[ending](rows)[: len(PACK[ending](rows)) // 2])
    source = build(JsonLines, path=str(path), broken="skip")
    assert len(list(source.read())) < 3000
    assert source.report.left_out == {"file-truncated": 1}


def test_zstandard_that_is_not_installed_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    (tmp_path / "a.jsonl.zst").write_bytes(b"x")
    with pytest.raises(UserError, match=r'needs the library zstandard.*\n.*pip install "corelm\[data\]"'):
        read(JsonLines, path=str(tmp_path / "a.jsonl.zst"))


def test_endings_are_those_of_what_is_packed(tmp_path):
    assert [plain_suffix(tmp_path / name) for name in ("a.JSONL.GZ", "a.txt", "a.zst", "a")] == [
        ".jsonl",
        ".txt",
        "",
        "",
    ]
    plain = tmp_path / "a.txt"
    plain.write_bytes(b"x")
    with opened(plain) as file:
        assert isinstance(file, io.BufferedReader) and file.read() == b"x"
