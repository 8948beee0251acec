"""The MSI-X table and pending bits that a guest sees (PCI Express Base Specification 7.7.2; sheet 11).

The hardware's own table belongs to the host; the guest's accesses to this one exit to the VMM. An entry is *live* when MSI-X is
enabled, the function is not masked and its own mask bit is clear. A vector that fires while it is not live sets its pending bit
and is delivered when it becomes live.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

ENTRY: Final = 16
MASKED: Final = 1
CONTROL_ENABLE: Final = 1 << 15
CONTROL_MASKALL: Final = 1 << 14


class Message(NamedTuple):
    """Address and data of an entry."""

    address: int
    data: int


class MsixTable:
    """`vectors` entries, all masked at reset, and their pending bits."""

    def __init__(self, vectors: int) -> None:
        self.vectors = vectors
        self.enabled = False
        self.maskall = False
        self._words: dict[int, list[int]] = {}
        self._pending: set[int] = set()

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return self.vectors * ENTRY

    @property
    def pba_size(self) -> int:
        """Bytes of the pending bits, a whole number of 64-bit words."""
        return -(-self.vectors // 64) * 8

    def _entry(self, vector: int) -> list[int]:
        return self._words.setdefault(vector, [0, 0, 0, MASKED])

    def message(self, vector: int) -> Message:
        """What the guest programmed."""
        low, high, data, _ = self._entry(vector)
        return Message(high << 32 | low, data)

    def masked(self, vector: int) -> bool:
        """The vector's own mask bit."""
        words = self._words.get(vector)
        return words is None or bool(words[3] & MASKED)

    def live(self, vector: int) -> bool:
        """Whether the vector's message may be sent."""
        return self.enabled and not self.maskall and not self.masked(vector)

    def programmed(self) -> list[int]:
        """Vectors whose entry the guest has written, in order."""
        return sorted(self._words)

    def control(self, value: int) -> None:
        """Message Control was written."""
        self.enabled = bool(value & CONTROL_ENABLE)
        self.maskall = bool(value & CONTROL_MASKALL)

    # -- accesses --------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """4 or 8 bytes of the table; other accesses and addresses beyond it read 0."""
        value = 0
        for n in range(max(size // 4, 1)):
            vector, word = divmod(offset // 4 + n, 4)
            if vector < self.vectors:
                part = self._words[vector][word] if vector in self._words else (MASKED if word == 3 else 0)
                value |= part << 32 * n
        return value & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> list[int]:
        """A write of 4 or 8 bytes (others have no effect); returns the vectors that it touched."""
        if size not in (4, 8) or offset % 4:
            return []
        touched = []
        for n in range(size // 4):
            vector, word = divmod(offset // 4 + n, 4)
            if vector >= self.vectors:
                continue
            part = value >> 32 * n & 0xFFFF_FFFF
            self._entry(vector)[word] = part & ~3 if word == 0 else part & MASKED if word == 3 else part
            if vector not in touched:
                touched.append(vector)
        return touched

    def read_pba(self, offset: int, size: int) -> int:
        """Pending bits."""
        bits = sum(1 << vector for vector in self._pending)
        return bits >> 8 * offset & ((1 << 8 * size) - 1)

    # -- interrupts ------------------------------------------------------------------------------------------------

    def pend(self, vector: int) -> None:
        """A vector fired that is not live."""
        self._pending.add(vector)

    def take_pending(self, vectors: Iterable[int]) -> list[int]:
        """Those of `vectors` that are live and pending: their bits are cleared, the caller delivers them."""
        ready = [vector for vector in vectors if vector in self._pending and self.live(vector)]
        self._pending.difference_update(ready)
        return ready
