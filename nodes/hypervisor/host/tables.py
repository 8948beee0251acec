"""Tables that hardware indexes by DeviceID, ICID or vPEID: flat, or in two levels (sheet 3.4 and 5.3).

A level-1 entry is 8 bytes: Valid[63] and the address of a level-2 page. The driver gives pages out before it uses an ID.
"""

from __future__ import annotations

from cosim.api import MmioInitiator
from nodes.hypervisor.host.memory import Allocator

L1_ENTRY = 8
L1_VALID = 1 << 63
MAX_PAGES = 256
"""GITS_BASER.Size has 8 bits."""


class HardwareTable:
    """Memory of one table: `base` (physical), `pages`, `page_size` and `entry_size` in bytes, `indirect`."""

    def __init__(
        self,
        bus: MmioInitiator,
        memory: Allocator,
        entry_size: int,
        page_size: int,
        id_bits: int,
        *,
        indirect: bool,
        owner: str,
    ) -> None:
        self._bus = bus
        self._memory = memory
        self._owner = owner
        self.entry_size = entry_size
        self.page_size = page_size
        self.indirect = indirect
        self._per_page = page_size // entry_size
        if indirect:
            size = -(-(1 << id_bits) // self._per_page) * L1_ENTRY
        else:
            size = entry_size << id_bits
        self.pages = min(max(-(-size // page_size), 1), MAX_PAGES)
        self.base = memory.alloc(self.pages * page_size, page_size, owner)
        self._level2: dict[int, int] = {}

    @staticmethod
    def wants_indirect(entry_size: int, page_size: int, id_bits: int) -> bool:
        """Linux's rule: two levels once a flat table is larger than two pages."""
        return entry_size << id_bits > 2 * page_size

    @property
    def capacity(self) -> int:
        """Number of IDs that the table can hold."""
        if self.indirect:
            return self.pages * self.page_size // L1_ENTRY * self._per_page
        return self.pages * self._per_page

    def ensure(self, ident: int) -> None:
        """Make sure that `ident` has an entry; a new level-2 page is announced by a posted write, so `dsb` before use.

        Raises:
            ValueError: the table does not reach that far.
        """
        if not 0 <= ident < self.capacity:
            raise ValueError(f"ID of a {self._owner} must be below {self.capacity:#x}, not {ident:#x}")
        if not self.indirect:
            return
        index = ident // self._per_page
        if index not in self._level2:
            page = self._memory.alloc(self.page_size, self.page_size, self._owner)
            self._level2[index] = page
            self._bus.post64(self.base + index * L1_ENTRY, L1_VALID | page)
