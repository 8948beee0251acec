"""Type 0 configuration space of one function (PCI Express Base Specification 7.5 and 7.7).

Identity, three 64-bit BARs, a PCI Express capability and MSI-X; no INTx, no expansion ROM; PASID as an option.
"""

from __future__ import annotations

from collections.abc import Sequence

from nodes.arch.pci_config import COMMAND_MASTER, COMMAND_MEMORY, ConfigBytes

VENDOR, DEVICE, SUBSYSTEM_VENDOR, SUBSYSTEM = 0x13B5, 0xFF80, 0x13B5, 0x0000
CLASS, REVISION = 0xFF, 0x0F
HEADER_MULTI_FUNCTION = 0x80
ID, COMMAND, STATUS, CACHE_LINE, HEADER, BAR0, SUBSYSTEM_ID, CAP_POINTER, INT_LINE = (
    0x00, 0x04, 0x06, 0x0C, 0x0E, 0x10, 0x2C, 0x34, 0x3C,
)  # fmt: skip
COMMAND_BITS = COMMAND_MEMORY | COMMAND_MASTER | 1 << 6 | 1 << 8 | 1 << 10
STATUS_CAPABILITIES = 1 << 4
BAR_FLAGS = 0xC
"""64-bit, prefetchable: a root port forwards addresses above 4 GiB to prefetchable BARs only."""

CAP_PCIE, PCIE = 0x10, 0x40
CAP_MSIX, MSIX = 0x11, 0x80
MSIX_ENABLE, MSIX_MASK_ALL = 1 << 15, 1 << 14
EXTENDED, CAP_PASID = 0x100, 0x1B
PASID_WIDTH, PASID_PRIVILEGED, PASID_ENABLE = 20, 1 << 2, 1
DEVICE_CONTROL = PCIE + 0x08
LINK_CONTROL = PCIE + 0x10


class ConfigSpace(ConfigBytes):
    """4 KiB of one function. `bar_sizes` are those of BAR 0, 2 and 4, powers of two."""

    def __init__(self, bar_sizes: Sequence[int], vectors: int, *, multi_function: bool, pasid: bool = False) -> None:
        super().__init__()
        self.bar_sizes = tuple(bar_sizes)
        self.define(ID, 4, VENDOR | DEVICE << 16)
        self.define(COMMAND, 2, 0, COMMAND_BITS)
        self.define(STATUS, 2, STATUS_CAPABILITIES)
        self.define(0x08, 4, REVISION | CLASS << 24)
        self.define(CACHE_LINE, 1, 0, 0xFF)
        self.define(HEADER, 1, HEADER_MULTI_FUNCTION if multi_function else 0)
        for n, size in enumerate(self.bar_sizes):
            self.define(BAR0 + 8 * n, 8, BAR_FLAGS, ~(size - 1) & 0xFFFF_FFFF_FFFF_FFF0)
        self.define(SUBSYSTEM_ID, 4, SUBSYSTEM_VENDOR | SUBSYSTEM << 16)
        self.define(CAP_POINTER, 1, PCIE)
        self.define(INT_LINE, 1, 0, 0xFF)
        self._pcie()
        self.define(MSIX, 2, CAP_MSIX)
        self.define(MSIX + 2, 2, vectors - 1, MSIX_ENABLE | MSIX_MASK_ALL)
        self.define(MSIX + 4, 4, 2)  # table: BAR 2, offset 0
        self.define(MSIX + 8, 4, 4)  # pending bits: BAR 4, offset 0
        if pasid:
            self.define(EXTENDED, 4, CAP_PASID | 1 << 16)
            self.define(EXTENDED + 4, 2, PASID_WIDTH << 8 | PASID_PRIVILEGED)
            self.define(EXTENDED + 6, 2, 0, PASID_ENABLE)

    def _pcie(self) -> None:
        """An endpoint's capability, version 2: 4 KiB payload, role-based error reporting, x16 at 16 GT/s."""
        self.define(PCIE, 2, CAP_PCIE | MSIX << 8)
        self.define(PCIE + 0x02, 2, 2)
        self.define(PCIE + 0x04, 4, 5 | 1 << 15)
        self.define(DEVICE_CONTROL, 2, 5 << 5 | 2 << 12 | 1 << 4 | 1 << 11, 0x78FF)
        self.define(PCIE + 0x0C, 4, 4 | 16 << 4)
        self.define(LINK_CONTROL, 2, 0, 0x00C0)
        self.define(PCIE + 0x12, 2, 4 | 16 << 4)

    @property
    def msix_enabled(self) -> bool:
        """MSI-X Enable."""
        return bool(self.read(MSIX + 2, 2) & MSIX_ENABLE)

    @property
    def msix_masked(self) -> bool:
        """MSI-X Function Mask."""
        return bool(self.read(MSIX + 2, 2) & MSIX_MASK_ALL)

    @property
    def pasid_enabled(self) -> bool:
        """PASID Enable, of a function that has the capability."""
        return bool(self.read(EXTENDED + 6, 2) & PASID_ENABLE)

    def decode(self, address: int, size: int) -> tuple[int, int] | None:
        """(BAR index 0, 2 or 4; offset) of a memory access that lies in a BAR, if memory space is enabled."""
        if self.memory_enabled:
            for n, length in enumerate(self.bar_sizes):
                base = self.read(BAR0 + 8 * n, 8) & ~0xF
                if base <= address and address + size <= base + length:
                    return 2 * n, address - base
        return None
