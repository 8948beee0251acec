"""The configuration space that a guest sees of a passed-through function: the device's own, with virtual BARs, Command and
MSI-X Message Control (kvmtool's vfio/pci.c, behaviour).

BARs keep their size and type; their addresses are the VMM's, in the guest's PCI window, and the guest may move them. Writes of
anything else do not reach the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COMMAND: Final = 0x04
BAR0: Final = 0x10
ROM_BAR: Final = 0x30
CAP_POINTER: Final = 0x34
INTERRUPT_PIN: Final = 0x3D
COMMAND_MEMORY: Final = 1 << 1
COMMAND_WRITABLE: Final = 0x0547
"""I/O, memory, master, parity, SERR, INTx disable."""
CAP_MSIX: Final = 0x11
MSIX_WRITABLE: Final = 0xC000
BAR_TYPE: Final = 0xF
BAR_64: Final = 0x4
SIZE: Final = 4096


class VirtualConfig:
    """4 KiB of configuration space.

    Args:
        config: the device's, at least the first 256 bytes; what is beyond reads 0.
        bars: index to size in bytes.
        addresses: index to the guest-physical address that the VMM assigned.
    """

    def __init__(self, config: bytes, bars: Mapping[int, int], addresses: Mapping[int, int]) -> None:
        self._bytes = bytearray(config[:256].ljust(SIZE, b"\0"))
        self._sizes = dict(bars)
        self._wide: dict[int, int] = {}
        self._set(ROM_BAR, 4, 0)
        self._bytes[INTERRUPT_PIN] = 0
        self._set(COMMAND, 2, 0)
        for index in range(6):
            if index in self._wide:
                continue
            flags = self._get(BAR0 + 4 * index, 4) & BAR_TYPE
            if index not in bars:
                self._set(BAR0 + 4 * index, 4, 0)
                continue
            self._set_bar(index, flags, addresses[index])
        self.msix = self._find(CAP_MSIX)
        if self.msix:
            self._set(self.msix + 2, 2, self._get(self.msix + 2, 2) & ~MSIX_WRITABLE)

    def _get(self, offset: int, size: int) -> int:
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def _set(self, offset: int, size: int, value: int) -> None:
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")

    def _set_bar(self, index: int, flags: int, address: int) -> None:
        self._set(BAR0 + 4 * index, 4, address & 0xFFFF_FFF0 | flags)
        if flags & BAR_64:
            self._wide[index + 1] = index
            self._set(BAR0 + 4 * index + 4, 4, address >> 32)

    def _find(self, capability: int) -> int:
        at, seen = self._bytes[CAP_POINTER] & ~3, 0
        while at >= 0x40 and seen < 48:
            if self._bytes[at] == capability:
                return at
            at, seen = self._bytes[at + 1] & ~3, seen + 1
        return 0

    @property
    def memory_enabled(self) -> bool:
        """Command.Memory Space Enable."""
        return bool(self._get(COMMAND, 2) & COMMAND_MEMORY)

    @property
    def msix_control(self) -> int:
        """MSI-X Message Control; 0 without the capability."""
        return self._get(self.msix + 2, 2) if self.msix else 0

    def bar(self, index: int) -> int:
        """Guest-physical address of a BAR."""
        low = self._get(BAR0 + 4 * index, 4)
        high = self._get(BAR0 + 4 * index + 4, 4) if low & BAR_64 else 0
        return high << 32 | low & ~BAR_TYPE

    def locate(self, ipa: int, size: int) -> tuple[int, int] | None:
        """(BAR index, offset) of an access inside a BAR, while memory decoding is on."""
        if self.memory_enabled:
            for index, length in self._sizes.items():
                base = self.bar(index)
                if base <= ipa and ipa + size <= base + length:
                    return index, ipa - base
        return None

    # -- accesses --------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A configuration read."""
        return self._get(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """A configuration write; what is read-only keeps its value."""
        for at in range(offset & ~3, offset + size, 4):
            old = self._get(at, 4)
            shift = 8 * (at - offset)
            part = value >> shift if shift >= 0 else value << -shift
            lanes = ((1 << 8 * size) - 1) >> shift if shift >= 0 else ((1 << 8 * size) - 1) << -shift
            lanes &= 0xFFFF_FFFF
            new = old & ~lanes | part & lanes
            self._write_word(at, old, new)

    def _write_word(self, at: int, old: int, new: int) -> None:
        if at == COMMAND:
            self._set(at, 4, old & ~COMMAND_WRITABLE | new & COMMAND_WRITABLE)
        elif BAR0 <= at < BAR0 + 24:
            self._write_bar((at - BAR0) // 4, new)
        elif self.msix and at == self.msix:
            writable = MSIX_WRITABLE << 16
            self._set(at, 4, old & ~writable | new & writable)

    def _write_bar(self, index: int, value: int) -> None:
        """Address bits below the size read as 0, whatever is written: that is how a guest learns the size."""
        if index in self._wide:
            size = self._sizes[self._wide[index]]
            self._set(BAR0 + 4 * index, 4, value & ~((size - 1) >> 32) & 0xFFFF_FFFF)
        elif index in self._sizes:
            flags = self._get(BAR0 + 4 * index, 4) & BAR_TYPE
            self._set(BAR0 + 4 * index, 4, value & ~(self._sizes[index] - 1) & 0xFFFF_FFF0 | flags)
