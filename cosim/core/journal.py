"""The append-only journal: records of (length, checksum, payload), readable up to a torn tail.

Record: u32 length of the payload, u32 crc32 of the payload (both little-endian), payload. A file begins with `HEADER`. A
reader stops at the first record that is cut short or fails its checksum: what a killed writer left behind is not an error.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

HEADER = b"CSJ1\0\0\0\0"
_PREFIX = struct.Struct("<II")
MAX_RECORD = 64 * 1024 * 1024


class JournalError(Exception):
    """The file is not a journal."""


class Tail(NamedTuple):
    """Where reading stopped: byte offset and, if the tail is torn, why."""

    offset: int
    torn: str | None


def record_parts(tag: bytes, frame: bytes) -> tuple[bytes, bytes, bytes]:
    """The bytes of a record whose payload is `tag` and `frame`, in parts."""
    return _PREFIX.pack(len(tag) + len(frame), zlib.crc32(frame, zlib.crc32(tag))), tag, frame


def read_records(data: bytes) -> tuple[list[bytes], Tail]:
    """Every whole record of a journal's bytes, and where reading stopped.

    Raises:
        JournalError: the header is missing or foreign (an empty file, or a header cut short, is a torn tail at offset 0).
    """
    if len(data) < len(HEADER) and HEADER.startswith(data):
        return [], Tail(0, "header cut short")
    if not data.startswith(HEADER):
        raise JournalError(f"journal must begin with {HEADER!r}, not {data[: len(HEADER)]!r}")
    records: list[bytes] = []
    offset = len(HEADER)
    while offset < len(data):
        item = _next(data, offset)
        if isinstance(item, str):
            return records, Tail(offset, item)
        records.append(item)
        offset += _PREFIX.size + len(item)
    return records, Tail(offset, None)


def _next(data: bytes, offset: int) -> bytes | str:
    """The payload at `offset`, or why there is none."""
    if offset + _PREFIX.size > len(data):
        return "record prefix cut short"
    length, checksum = _PREFIX.unpack_from(data, offset)
    start = offset + _PREFIX.size
    payload = data[start : start + length]
    if length > MAX_RECORD or len(payload) < length:
        return "record cut short"
    if zlib.crc32(payload) != checksum:
        return "record fails its checksum"
    return payload
