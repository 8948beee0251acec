"""The vPE configuration table behind GICR_VPROPBASER (GICv4.1): which vPEs it has room for (IHI 0069H chapter 12).

Its entries have the ITS's format and are written by VMAPP (the same memory is behind GITS_BASER2); a redistributor keeps the
state of the vPEs it owns itself. What it must know is whether an entry exists at all: a flat table ends with its Size, a
two-level one has a level-1 entry (8 bytes: Valid[63], address) for each page of entries, which software makes valid before VMAPP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosim.api import BusFault

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor

ENTRY_BYTES = 8
"""(GICR_VPROPBASER.Entry_Size + 1) * 8."""

VALID = 1 << 63
_PAGES = (0x1000, 0x4000, 0x1_0000, 0x1_0000)


class Directory:
    """`configure` takes VPROPBASER; `reason_against(vpeid)` says why there is no entry, "" if there is one."""

    def __init__(self, rd: Redistributor) -> None:
        self._rd = rd
        self.configure(0)

    def configure(self, value: int) -> None:
        """VPROPBASER was written: what was known of the table is forgotten."""
        self.valid = bool(value & VALID)
        self._indirect = bool(value >> 55 & 1)
        self._page = _PAGES[value >> 53 & 3]
        self._size = ((value & 0x7F) + 1) * self._page
        self._base = value & (1 << 52) - (1 << 12)
        self._present: set[int] = set()

    def known(self, vpeid: int) -> str | None:
        """As `reason_against`, None when memory must be asked."""
        if vpeid >> self._rd.vpe_bits:
            return f"vPEID must be below {1 << self._rd.vpe_bits}"
        if not self.valid:
            return "GICR_VPROPBASER.Valid must be 1 before VMAPP"
        if not self._indirect:
            entries = self._size // ENTRY_BYTES
            return "" if vpeid < entries else f"GICR_VPROPBASER.Size has room for {entries} vPEs only"
        page = vpeid * ENTRY_BYTES // self._page
        if page * 8 >= self._size:
            return f"level 1 of the vPE table has {self._size // 8} entries only"
        return "" if page in self._present else None

    async def reason_against(self, vpeid: int) -> str:
        """Why the table has no entry for a vPE, "" if it has one; reads the level-1 entry unless it was found valid before."""
        known = self.known(vpeid)
        if known is not None:
            return known
        page = vpeid * ENTRY_BYTES // self._page
        address = self._base + 8 * page
        present = self._present
        try:
            entry = await self._rd.bus.read64(address)
        except BusFault as fault:
            return f"level 1 of the vPE table could not be read: {fault}"
        if not entry & VALID:
            return f"the level-1 entry at {address:#x} must be valid before VMAPP"
        present.add(page)  # if VPROPBASER has changed since, that set is no longer looked at
        return ""
