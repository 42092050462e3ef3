"""GGUF's metadata: named values before the tensors, read without them.

The layout is that of ggml's ``docs/gguf.md``: a magic number, version, number of tensors, number of values; then for
each value its key, its type, itself. Strings have their length before them, arrays their type and length.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from corelm_tokenizers.formats.found import damaged, refused

MAGIC: Final = b"GGUF"

_NUMBERS: Final = {
    0: "u1",
    1: "i1",
    2: "u2",
    3: "i2",
    4: "u4",
    5: "i4",
    6: "f4",
    7: "?",
    10: "u8",
    11: "i8",
    12: "f8",
}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_UINT8: Final = 0
_MOST_VALUES: Final = 2**16


class _Reader:
    """Reads values from a file, and knows where it is."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.size = file.seek(0, 2)
        self.key = "the header"
        self.order = "<"
        file.seek(0)

    def take(self, size: int) -> bytes:
        """So many bytes.

        Raises:
            UserError: the file ends before.
        """
        at = self.file.tell()
        if size > self.size - at:
            raise damaged(
                self.path, f"byte {at} ({self.key})", f"{size} bytes are expected, only {self.size - at} are left"
            )
        return self.file.read(size)

    def number(self, size: int) -> int:
        """One whole number of so many bytes, without sign."""
        return int.from_bytes(self.take(size), "little" if self.order == "<" else "big")

    def string(self) -> str:
        """A string."""
        at = self.file.tell()
        raw = self.take(self.number(8))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise damaged(self.path, f"byte {at + 8 + error.start} ({self.key})", "it is no UTF-8") from error

    def value(self, kind: int) -> Any:
        """A value of a type."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, length = self.number(4), self.number(8)
            if inner == _STRING:
                if length * 8 > self.size - self.file.tell():
                    what = f"{length} strings are claimed, only {self.size - self.file.tell()} bytes are left"
                    raise damaged(self.path, f"byte {self.file.tell()} ({self.key})", what)
                return [self.string() for _ in range(length)]
            if inner in _NUMBERS:
                raw = self.take(length * np.dtype(_NUMBERS[inner]).itemsize)
                return np.frombuffer(raw, self.order + _NUMBERS[inner]).tolist()
            kind = inner
        if kind not in _NUMBERS:
            raise damaged(self.path, f"byte {self.file.tell()} ({self.key})", f"no value is of type {kind}")
        raw = self.take(np.dtype(_NUMBERS[kind]).itemsize)
        return np.frombuffer(raw, self.order + _NUMBERS[kind])[0].item()


def read(path: Path, prefix: str = "") -> dict[str, Any]:
    """Values by key; the tensors behind them are not looked at.

    Args:
        path: the file.
        prefix: only keys that begin so.

    Raises:
        UserError: it isn't GGUF, of another version, or damaged.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path)
        if reader.take(4) != MAGIC:
            raise damaged(path, "byte 0", "it doesn't begin as a GGUF does")
        version = reader.take(4)
        if version[:2] == b"\0\0":
            reader.order = ">"
        number = int.from_bytes(version, "little" if reader.order == "<" else "big")
        if number not in (2, 3):
            raise refused(path, f"it is GGUF version {number}", "Convert it to version 3, which llama.cpp writes.")
        reader.number(8)
        count = reader.number(8)
        if count > _MOST_VALUES:
            raise damaged(path, "byte 16", f"{count} values are claimed")
        found: dict[str, Any] = {}
        for _ in range(count):
            reader.key = "a key"
            key = reader.key = reader.string()
            value = reader.value(reader.number(4))
            if key in found:
                raise damaged(path, f"byte {file.tell()}", f"the key {key!r} is there twice")
            if key.startswith(prefix):
                found[key] = value
    return found


def write(path: Path, values: Mapping[str, Any], bytes_keys: Collection[str] = ()) -> None:
    """Write a GGUF with these values and no tensors.

    Args:
        path: the file.
        values: text, truth values, whole numbers (32 bits, without sign), floats, and lists of them; whole numbers in
            lists have a sign.
        bytes_keys: keys whose lists are bytes.
    """
    parts = [MAGIC, struct.pack("<IQQ", 3, 0, len(values))]
    for key, value in values.items():
        if isinstance(value, list):
            text = bool(value) and isinstance(value[0], str)
            plain = {int: _UINT8 if key in bytes_keys else _INT32, float: _FLOAT32, bool: _BOOL}
            inner = _STRING if text or not value else plain[type(value[0])]
            body = (
                b"".join(map(_string, value)) if text else np.array(value, f"<{_NUMBERS.get(inner, 'u1')}").tobytes()
            )
            kind, body = _ARRAY, struct.pack("<IQ", inner, len(value)) + body
        elif isinstance(value, str):
            kind, body = _STRING, _string(value)
        else:
            kind = {bool: _BOOL, int: _UINT32, float: _FLOAT32}[type(value)]
            body = np.array(value, f"<{_NUMBERS[kind]}").tobytes()
        parts += [_string(key), struct.pack("<I", kind), body]
    path.write_bytes(b"".join(parts))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
