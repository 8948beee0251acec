"""A PCI function as the host knows it: configuration space, capabilities, BARs, bridge windows, driver, IOMMU group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodes.arch.pcie import bdf, ecam_offset

if TYPE_CHECKING:
    from nodes.hypervisor.host.pci import PciHost

CONFIG_SIZE = 256
CMD_MEMORY, CMD_MASTER = 1 << 1, 1 << 2
CMD_INTX_DISABLE = 1 << 10
STATUS_CAP_LIST = 1 << 20
HEADER_MULTI, HEADER_BRIDGE = 0x80, 1
CAP_MSIX = 0x11
CAP_PCIE = 0x10
CAP_PM = 0x01
EXT_CAP_ACS = 0x0D
ROOT_PORT, DOWNSTREAM_PORT = 4, 6
MSIX_ENABLE, MSIX_MASKALL = 1 << 15, 1 << 14
BAR_64 = 0b100
BAR_PREFETCH = 1 << 3


class Bar:
    """A memory BAR: index 0 to 5, `size` bytes, `address` (physical), 64-bit or not, prefetchable or not."""

    def __init__(self, index: int, size: int, flags: int) -> None:
        self.index = index
        self.size = size
        self.wide = flags & 0b110 == BAR_64
        self.prefetchable = bool(flags & BAR_PREFETCH)
        self.flags = flags & 0xF
        self.address = 0


class PciFunction:
    """One function: `rid`, its configuration space as read at enumeration (with extended capabilities, if it has any, more
    than 256 bytes), the bridge above it, its BARs, a bridge's windows {prefetchable: (base, size)}, its driver and IOMMU group."""

    def __init__(self, pci: PciHost, rid: int, config: bytes, parent: PciFunction | None = None) -> None:
        self.pci = pci
        self.rid = rid
        self.parent = parent
        self.windows: dict[bool, tuple[int, int]] = {}
        self.group = -1
        self.config = bytearray(config)
        self.bars: dict[int, Bar] = {}
        self.driver = ""
        self.driver_override = ""

    @property
    def name(self) -> str:
        """For example ``0000:08:00.1``."""
        return bdf(self.rid)

    def u16(self, offset: int) -> int:
        """16 bits of the configuration space as last read or written."""
        return int.from_bytes(self.config[offset : offset + 2], "little")

    def u32(self, offset: int) -> int:
        """32 bits of the configuration space as last read or written."""
        return int.from_bytes(self.config[offset : offset + 4], "little")

    @property
    def vendor(self) -> int:
        """Vendor ID."""
        return self.u16(0)

    @property
    def device(self) -> int:
        """Device ID."""
        return self.u16(2)

    def capabilities(self) -> list[tuple[int, int]]:
        """(ID, offset) of the capability list."""
        found = []
        offset = self.config[0x34] & ~3 if self.u32(4) & STATUS_CAP_LIST else 0
        while offset >= 0x40 and (self.config[offset], offset) not in found:
            found.append((self.config[offset], offset))
            offset = self.config[offset + 1] & ~3
        return found

    def capability(self, ident: int) -> int:
        """Offset of a capability; 0 if there is none."""
        return next((offset for cap, offset in self.capabilities() if cap == ident), 0)

    @property
    def bridge(self) -> bool:
        """Whether it has a type 1 header."""
        return self.config[0x0E] & 0x7F == HEADER_BRIDGE

    @property
    def port_type(self) -> int | None:
        """Device/Port Type of the PCI Express capability; None without one."""
        cap = self.capability(CAP_PCIE)
        return self.u16(cap + 2) >> 4 & 0xF if cap else None

    @property
    def isolated(self) -> bool:
        """Whether it keeps requests from its peers (Linux's pci_acs_enabled): ports by ACS, several functions too."""
        needed = self.port_type in (ROOT_PORT, DOWNSTREAM_PORT) or self.config[0x0E] & HEADER_MULTI
        return not needed or any(ident == EXT_CAP_ACS for ident, _ in self.extended_capabilities())

    def extended_capabilities(self) -> list[tuple[int, int]]:
        """(ID, offset) of the extended capability list."""
        found = []
        offset = CONFIG_SIZE
        while CONFIG_SIZE <= offset < len(self.config) - 3 and self.u32(offset) not in (0, 0xFFFF_FFFF):
            found.append((self.u16(offset), offset))
            offset = self.u32(offset) >> 20
        return found

    @property
    def msix_vectors(self) -> int:
        """Size of the MSI-X table in vectors; 0 without MSI-X."""
        cap = self.capability(CAP_MSIX)
        return (self.u16(cap + 2) & 0x7FF) + 1 if cap else 0

    def msix_location(self, pba: bool = False) -> tuple[int, int]:
        """(BAR index, offset) of the MSI-X table, or of the pending bits."""
        word = self.u32(self.capability(CAP_MSIX) + (8 if pba else 4))
        return word & 7, word & ~7

    def address(self, offset: int) -> int:
        """Physical address of a configuration register in the ECAM window."""
        return self.pci.ecam + ecam_offset(self.rid, offset)

    def post32(self, offset: int, value: int) -> None:
        """Post a configuration write; the copy follows."""
        self.config[offset : offset + 4] = value.to_bytes(4, "little")
        self.pci.host.bus.post32(self.address(offset), value)

    async def command(self, set_bits: int, clear_bits: int = 0) -> None:
        """Change the Command register (Status is write-1-to-clear and is left alone)."""
        value = (self.u16(4) | set_bits) & ~clear_bits
        self.config[4:6] = value.to_bytes(2, "little")
        await self.pci.host.bus.write(self.address(4), value, 2)

    async def msix_control(self, set_bits: int, clear_bits: int = 0) -> None:
        """Change MSI-X Message Control."""
        cap = self.capability(CAP_MSIX)
        value = (self.u16(cap + 2) | set_bits) & ~clear_bits
        self.config[cap + 2 : cap + 4] = value.to_bytes(2, "little")
        await self.pci.host.bus.write(self.address(cap + 2), value, 2)
