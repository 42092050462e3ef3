"""Files that may be compressed, read as a stream that says when it is broken off."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from corelm.kinds import library

PIECE: Final = 1 << 16
"""Bytes that are read at once, and at most so many are unpacked at once by formats that can be asked to stop."""

ZSTANDARD_PIECE: Final = 1 << 10
"""Zstandard can't be asked to stop: four bytes may stand for a block of 128 KiB, so a piece gives 32 MiB at most."""


class Damaged(ValueError):  # noqa: N818
    """Compressed data that break off or are none."""


class _Unpacker:
    """One compressed member of a file. ``step`` takes bytes and gives plain ones and the bytes not taken yet."""

    def __init__(self, member: Any) -> None:
        self.member = member

    @property
    def ended(self) -> bool:
        return bool(self.member.eof)

    @property
    def hungry(self) -> bool:
        """Whether nothing more comes without more bytes."""
        return True

    @abstractmethod
    def step(self, data: bytes) -> tuple[bytes, bytes]:
        """Unpack some."""


class _Gzip(_Unpacker):
    def __init__(self) -> None:
        super().__init__(zlib.decompressobj(31))

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        plain = self.member.decompress(data, PIECE)
        return plain, self.member.unused_data if self.ended else self.member.unconsumed_tail


class _Buffered(_Unpacker):
    """bzip2 and xz keep what they haven't unpacked yet."""

    @property
    def hungry(self) -> bool:
        return bool(self.member.needs_input)

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        if not self.hungry:
            plain, rest = self.member.decompress(b"", PIECE), data
        else:
            plain, rest = self.member.decompress(data, PIECE), b""
        return plain, (self.member.unused_data + rest if self.ended else rest)


class _Zstandard(_Unpacker):
    def __init__(self) -> None:
        zstandard = library("zstandard", extra="data", by="a file that ends in .zst")
        super().__init__(zstandard.ZstdDecompressor().decompressobj())

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        plain = self.member.decompress(data[:ZSTANDARD_PIECE])
        rest = data[ZSTANDARD_PIECE:]
        return plain, self.member.unused_data + rest if self.ended else rest


UNPACKERS: Final[dict[str, Callable[[], _Unpacker]]] = {
    ".gz": _Gzip,
    ".bz2": lambda: _Buffered(bz2.BZ2Decompressor()),
    ".xz": lambda: _Buffered(lzma.LZMADecompressor()),
    ".zst": _Zstandard,
}
"""How files of each ending are unpacked."""


class _Unpacked(io.RawIOBase):
    """The plain bytes of a file of one or more compressed members.

    The standard library's readers pass over what follows the first member of a bzip2 file if it is damaged, and the
    usual reader of Zstandard takes a file that breaks off for one that ends. Here both are errors.
    """

    def __init__(self, file: io.BufferedReader, begin: Callable[[], _Unpacker]) -> None:
        self._file, self._begin = file, begin
        self._member: _Unpacker | None = None
        self._held, self._plain = b"", memoryview(b"")
        self._members = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            if not self._advance():
                return 0
        count = min(len(buffer), len(self._plain))
        buffer[:count], self._plain = self._plain[:count], self._plain[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _advance(self) -> bool:
        """Unpack a little; whether there was anything."""
        if not self._held and (self._member is None or self._member.hungry):
            self._held = self._file.read(PIECE)
            if not self._held:
                if self._member is not None or not self._members:
                    raise Damaged("the compressed data break off")
                return False
        if self._member is None:
            # Writers may fill a block up with zeros after the last member.
            if self._members and not (padded := self._held.lstrip(b"\0")):
                self._held = padded
                return True
            self._member, self._members = self._begin(), self._members + 1
        try:
            plain, self._held = self._member.step(self._held)
        except Exception as error:  # each library has an error of its own
            raise Damaged(str(error)) from error
        self._plain = memoryview(plain)
        if self._member.ended:
            self._member = None
        return True


def opened(path: Path) -> io.BufferedReader:
    """Open a file to be read from its beginning, unpacked if its name ends in .gz, .bz2, .xz or .zst.

    Reading raises ``Damaged`` where compressed data break off or are damaged. No more than some ten mebibytes are
    unpacked ahead, whatever the data expand to.

    Raises:
        OSError: it can't be opened.
        UserError: the library for this compression isn't installed.
    """
    file = path.open("rb")
    begin = UNPACKERS.get(path.suffix.lower())
    if begin is None:
        return file
    return io.BufferedReader(cast(io.RawIOBase, _Unpacked(file, begin)), PIECE)


def plain_suffix(path: Path) -> str:
    """The ending of a file's name without that of its compression: ``.jsonl`` for ``a.jsonl.gz``."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in UNPACKERS else path.suffix.lower()
