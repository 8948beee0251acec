"""Configuration space as bytes with a mask of the writable bits (PCI Express Base Specification 7.5)."""

from __future__ import annotations

SIZE = 4096
COMMAND_MEMORY, COMMAND_MASTER = 1 << 1, 1 << 2


class ConfigBytes:
    """4 KiB of one function. Offsets and sizes in bytes, values little-endian."""

    def __init__(self) -> None:
        self._bytes = bytearray(SIZE)
        self._writable = bytearray(SIZE)

    def define(self, offset: int, size: int, value: int, writable: int = 0) -> None:
        """A field's reset value and the bits of it that software can write."""
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")
        self._writable[offset : offset + size] = writable.to_bytes(size, "little")

    def read(self, offset: int, size: int) -> int:
        """`size` bytes at an offset."""
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the bits that can be written."""
        for n, byte in enumerate(value.to_bytes(size, "little"), offset):
            mask = self._writable[n]
            self._bytes[n] = self._bytes[n] & ~mask | byte & mask

    @property
    def memory_enabled(self) -> bool:
        """Command.Memory Space Enable."""
        return bool(self.read(4, 2) & COMMAND_MEMORY)

    @property
    def bus_master(self) -> bool:
        """Command.Bus Master Enable."""
        return bool(self.read(4, 2) & COMMAND_MASTER)
