"""Configuration spaces of a root complex's own functions: endpoints (type 0 header) and ports (type 1 header).

Layout: PCI Express Base Specification 7.5.1 (headers), 7.5.3 (PCI Express capability), 7.7.11 (Access Control Services).
"""

from __future__ import annotations

from typing import NamedTuple

from nodes.arch.pci_config import COMMAND_MASTER, COMMAND_MEMORY, ConfigBytes

ID, COMMAND, STATUS, REVISION, CACHE_LINE, HEADER, BARS, SUBSYSTEM, CAP_POINTER, INT_LINE = (
    0x00, 0x04, 0x06, 0x08, 0x0C, 0x0E, 0x10, 0x2C, 0x34, 0x3C,
)  # fmt: skip
BUS_NUMBERS, MEMORY_WINDOW, PREFETCH_WINDOW, PREFETCH_UPPER, BRIDGE_CONTROL = 0x18, 0x20, 0x24, 0x28, 0x3E
MULTI_FUNCTION = 0x80
STATUS_CAPABILITIES = 1 << 4
COMMAND_BITS = COMMAND_MEMORY | COMMAND_MASTER | 1 << 6 | 1 << 8 | 1 << 10
BAR_64, BAR_PREFETCH = 0b100, 0b1000
WINDOW_64 = 1
PCIE, CAP_PCIE = 0x40, 0x10
EXTENDED, CAP_ACS = 0x100, 0x0D
ENDPOINT, ROOT_PORT, UPSTREAM_PORT, DOWNSTREAM_PORT, ROOT_ENDPOINT = 0, 4, 5, 6, 9
"""Device/Port Type of the PCI Express capability."""
ACS_SOURCE_TO_FORWARD = 0b1_1111
"""Source Validation, Translation Blocking, P2P Request and Completion Redirect, Upstream Forwarding."""


class Bar(NamedTuple):
    """A memory BAR: number 0 to 5, bytes (a power of two), 64-bit and prefetchable or neither."""

    number: int
    size: int
    wide: bool


class Identity(NamedTuple):
    """What a function is: IDs, class code (24 bits), revision, BARs."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    bars: tuple[Bar, ...] = ()


IDENTITIES = {
    "host_bridge": Identity(0x13B5, 0x00BA, 0x06_0000, 1),
    "root_port": Identity(0x13B5, 0x0DEF, 0x06_0400),
    "upstream_port": Identity(0x13B5, 0x0DEF, 0x06_0400),
    "downstream_port": Identity(0x13B5, 0x0DEF, 0x06_0400),
    "ahci": Identity(0x0ABC, 0xACED, 0x01_0601, 1, (Bar(5, 0x2000, False),)),
    "exerciser": Identity(0x13B5, 0xED01, 0xFF_0000, 0, (Bar(0, 0x4000, True),)),
    "smmute": Identity(
        0x13B5, 0xFF80, 0xFF_0000, 0x0F, (Bar(0, 0x4_0000, True), Bar(2, 0x8000, True), Bar(4, 0x1000, True))
    ),
}
"""Functions of RD-N2's hierarchy. Identities as listings of the FVP's lspci show them; the exerciser's BAR is assumed."""
PORTS = {"root_port": ROOT_PORT, "upstream_port": UPSTREAM_PORT, "downstream_port": DOWNSTREAM_PORT}


class FunctionConfig(ConfigBytes):
    """Configuration space of a function of IDENTITIES. `port`: Device/Port Type, None for one without that capability."""

    def __init__(self, kind: str, port: int | None, *, multi_function: bool) -> None:
        super().__init__()
        self._open: list[tuple[int, int]] | None = None  # the windows, until a write may have moved them
        self.identity = identity = IDENTITIES[kind]
        self.bridge = kind in PORTS
        self.port = port
        self.define(ID, 4, identity.vendor | identity.device << 16)
        self.define(COMMAND, 2, 0, COMMAND_BITS)
        self.define(REVISION, 4, identity.revision | identity.class_code << 8)
        self.define(CACHE_LINE, 1, 0, 0xFF)
        self.define(HEADER, 1, int(self.bridge) | (MULTI_FUNCTION if multi_function else 0))
        self.define(INT_LINE, 1, 0, 0xFF)
        if self.bridge:
            self._bridge()
        else:
            self._endpoint()
        if port is not None:
            self._capabilities(port)

    def _endpoint(self) -> None:
        for bar in self.identity.bars:
            size, flags = (8, BAR_64 | BAR_PREFETCH) if bar.wide else (4, 0)
            self.define(BARS + 4 * bar.number, size, flags, ~(bar.size - 1) & (1 << 8 * size) - 1)
        self.define(SUBSYSTEM, 4, self.identity.vendor)

    def _bridge(self) -> None:
        """No I/O window, a 32-bit memory window, a 64-bit prefetchable window."""
        self.define(BUS_NUMBERS, 4, 0, 0x00FF_FFFF)
        self.define(MEMORY_WINDOW, 4, 0, 0xFFF0_FFF0)
        self.define(PREFETCH_WINDOW, 4, WINDOW_64 | WINDOW_64 << 16, 0xFFF0_FFF0)
        self.define(PREFETCH_UPPER, 8, 0, 0xFFFF_FFFF_FFFF_FFFF)
        self.define(BRIDGE_CONTROL, 2, 0, 0x0043)

    def _capabilities(self, port: int) -> None:
        self.define(STATUS, 2, STATUS_CAPABILITIES)
        self.define(CAP_POINTER, 1, PCIE)
        slot = port in (ROOT_PORT, DOWNSTREAM_PORT)
        self.define(PCIE, 4, CAP_PCIE | (2 | port << 4) << 16)
        self.define(PCIE + 0x04, 4, 5 | 1 << 15)
        self.define(PCIE + 0x08, 2, 5 << 5 | 2 << 12 | 1 << 4 | 1 << 11, 0x78FF)
        if port != ROOT_ENDPOINT:
            self.define(PCIE + 0x0C, 4, 4 | 16 << 4)
            self.define(PCIE + 0x10, 2, 0, 0x00C0)
            self.define(PCIE + 0x12, 2, 4 | 16 << 4)
        if slot:
            self.define(EXTENDED, 4, CAP_ACS | 1 << 16)
            self.define(EXTENDED + 4, 4, ACS_SOURCE_TO_FORWARD, ACS_SOURCE_TO_FORWARD << 16)

    # -- type 0 --------------------------------------------------------------------------------------------------------

    def claims(self, address: int, size: int) -> bool:
        """Whether a memory access lies in a BAR of this function."""
        if not self.memory_enabled:
            return False
        for bar in self.identity.bars:
            base = self.read(BARS + 4 * bar.number, 8 if bar.wide else 4) & ~0xF
            if base <= address and address + size <= base + bar.size:
                return True
        return False

    # -- type 1 --------------------------------------------------------------------------------------------------------

    @property
    def buses(self) -> tuple[int, int]:
        """(secondary, subordinate) bus number."""
        return self.read(BUS_NUMBERS + 1, 1), self.read(BUS_NUMBERS + 2, 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the bits that can be written."""
        super().write(offset, size, value)
        self._open = None

    def windows(self) -> list[tuple[int, int]]:
        """(first, last) address of the windows that are open; none with Memory Space Enable clear."""
        if self._open is None:
            self._open = self._windows() if self.memory_enabled else []
        return self._open

    def _windows(self) -> list[tuple[int, int]]:
        memory, prefetch, upper = (
            self.read(MEMORY_WINDOW, 4),
            self.read(PREFETCH_WINDOW, 4),
            self.read(PREFETCH_UPPER, 8),
        )
        found = [
            ((memory & 0xFFF0) << 16, (memory >> 16 & 0xFFF0) << 16 | 0xF_FFFF),
            (
                (prefetch & 0xFFF0) << 16 | (upper & 0xFFFF_FFFF) << 32,
                (prefetch >> 16 & 0xFFF0) << 16 | 0xF_FFFF | upper >> 32 << 32,
            ),
        ]
        return [(first, last) for first, last in found if first <= last]

    def forwards(self, address: int, size: int) -> bool:
        """Whether a memory access goes down through this port."""
        last_byte = address + size - 1
        for first, last in self.windows():
            if first <= address and last_byte <= last:
                return True
        return False
