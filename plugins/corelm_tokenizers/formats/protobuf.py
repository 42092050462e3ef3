"""Messages of protocol buffers, read and written without their schema.

A message is a sequence of fields: a number and a wire type packed into one varint, then the value (the encoding is
described at protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

VARINT: Final = 0
EIGHT_BYTES: Final = 1
LENGTH: Final = 2
FOUR_BYTES: Final = 5

_LONGEST_VARINT: Final = 10


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: which field.
        wire: how its value is written.
        value: a varint's number; otherwise where the value begins.
        end: where the value ends.
    """

    number: int
    wire: int
    value: int
    end: int


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """Fields of the message that stands in ``data[start:end]``.

    Raises:
        ValueError: it is no message; the text begins with the byte's offset.
    """
    at = start
    while at < end:
        begin, key = at, data[at]
        at += 1
        if key >= 0x80:
            key, at = _varint(data, begin, end)
        number, wire = key >> 3, key & 7
        if not number:
            raise ValueError(f"byte {begin}: a field with number 0")
        if wire == VARINT:
            value, at = _varint(data, at, end)
            yield Field(number, wire, value, at)
            continue
        if wire == LENGTH:
            size = data[at] if at < end else 0x80
            at += 1
            if size >= 0x80:
                size, at = _varint(data, at - 1, end)
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if wire == EIGHT_BYTES else 4
        else:
            raise ValueError(f"byte {begin}: a field of wire type {wire}, which no such file has")
        if size > end - at:
            raise ValueError(f"byte {begin}: field {number} claims {size} bytes, only {end - at} are left")
        yield Field(number, wire, at, at + size)
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits per byte, the lowest first, and where it ends."""
    value = shift = 0
    for place in range(at, min(end, at + _LONGEST_VARINT)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise ValueError(f"byte {at}: a number without an end")


def varint(value: int) -> bytes:
    """A number as ``fields`` reads it; negative ones in two's complement of 64 bits."""
    value &= 2**64 - 1
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def field(number: int, value: int | float | bytes) -> bytes:
    """One field: an int as varint, a float in four bytes, bytes with their length."""
    if isinstance(value, float):
        return varint(number << 3 | FOUR_BYTES) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    return varint(number << 3 | LENGTH) + varint(len(value)) + value
