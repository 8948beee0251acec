"""Pending tables as sets of INTIDs: from bytes, and what of them must be written back (IHI 0069 section 5.1)."""

from __future__ import annotations

from collections.abc import Set

LINE = 64
"""Bytes that are written back together."""
_PER_LINE = LINE * 8


def intids_of(data: bytes, first: int) -> set[int]:
    """INTIDs whose bit is set in `data`, which begins with the bit of INTID `first` (a multiple of 8)."""
    found: set[int] = set()
    for position, byte in enumerate(data):
        while byte:
            low = byte & -byte
            found.add(first + position * 8 + low.bit_length() - 1)
            byte ^= low
    return found


def line_of(pending: Set[int], line: int) -> bytes:
    """The 64 bytes of line `line` of the table."""
    first = line * _PER_LINE
    value = 0
    for intid in pending:
        if first <= intid < first + _PER_LINE:
            value |= 1 << (intid - first)
    return value.to_bytes(LINE, "little")


def changes(stored: Set[int], pending: Set[int]) -> list[tuple[int, bytes]]:
    """(byte offset, bytes) pieces that turn a table with `stored` into one with `pending`; neighbours are joined."""
    pieces: list[tuple[int, bytes]] = []
    for line in sorted({intid // _PER_LINE for intid in stored ^ pending}):
        data = line_of(pending, line)
        if pieces and pieces[-1][0] + len(pieces[-1][1]) == line * LINE:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + data)
        else:
            pieces.append((line * LINE, data))
    return pieces
