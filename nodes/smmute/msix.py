"""MSI-X table and pending bit array of one function (PCI Express Base Specification 6.1.4 and 7.7.2).

A vector that fires while it or its function is masked sets its pending bit, and is sent when both are unmasked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VECTORS = 2048
ENTRY_SIZE = 16
TABLE_SIZE, PBA_SIZE = VECTORS * ENTRY_SIZE, VECTORS // 8
ADDRESS_LOW, ADDRESS_HIGH, DATA, CONTROL = range(4)
MASKED = 1
RESET_ENTRY = (0, 0, 0, MASKED)
WRITABLE = (0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF_FFFF, MASKED)


class Msix:
    """`send(vector, address, data, aborted)` issues the write; entries exist once they were written."""

    def __init__(
        self,
        enabled: Callable[[], bool],
        masked: Callable[[], bool],
        master: Callable[[], bool],
        send: Callable[[int, int, int, Callable[[], Any]], None],
    ) -> None:
        self._enabled = enabled
        self._masked = masked
        self._master = master
        self._send = send
        self._entries: dict[int, list[int]] = {}
        self.pending: set[int] = set()

    # -- BAR 2 and BAR 4 -----------------------------------------------------------------------------------------------

    def read_table(self, offset: int) -> int:
        """A 32-bit word of the table."""
        return self._entry(offset // ENTRY_SIZE)[offset // 4 % 4]

    def write_table(self, offset: int, value: int) -> None:
        """Write a 32-bit word; unmasking sends what is pending."""
        vector, word = divmod(offset // 4, 4)
        entry = self._entries.setdefault(vector, list(RESET_ENTRY))
        entry[word] = value & WRITABLE[word]
        if word == CONTROL:
            self._deliver(vector)

    def read_pba(self, offset: int) -> int:
        """A 32-bit word of the pending bits."""
        return sum(1 << n for n in range(32) if offset * 8 + n in self.pending)

    def _entry(self, vector: int) -> list[int] | tuple[int, ...]:
        return self._entries.get(vector, RESET_ENTRY)

    # -- interrupts ----------------------------------------------------------------------------------------------------

    def can_send(self) -> bool:
        """Whether a vector that fires is sent or kept, and not lost."""
        return self._enabled() and self._master()

    def fire(self, vector: int, aborted: Callable[[], Any]) -> None:
        """A vector's event: sent, or made pending. `aborted()` is called when its write was refused."""
        if self._masked() or self._entry(vector)[CONTROL] & MASKED:
            self.pending.add(vector)
        else:
            entry = self._entry(vector)
            self._send(vector, entry[ADDRESS_LOW] | entry[ADDRESS_HIGH] << 32, entry[DATA], aborted)

    def control_changed(self) -> None:
        """Message Control or Command was written."""
        if not self._enabled():
            self.pending.clear()
        for vector in sorted(self.pending):
            self._deliver(vector)

    def _deliver(self, vector: int) -> None:
        if vector in self.pending and self.can_send():
            self.pending.discard(vector)
            self.fire(vector, lambda: None)
