"""A guest's RAM as the host sees it: IPA to PA, in blocks over the node's bus."""

from __future__ import annotations

from cosim.api import MmioInitiator


class OutOfGuestRam(Exception):
    """The guest named memory that it does not have; KVM answers as the architecture lets it."""

    def __init__(self, ipa: int, size: int) -> None:
        super().__init__(f"IPA {ipa:#x} (+{size:#x}) must lie in the guest's RAM")


class GuestMemory:
    """RAM of one guest: `size` bytes at `ipa`, backed by `pa`."""

    def __init__(self, bus: MmioInitiator, ipa: int, size: int, pa: int) -> None:
        self.bus = bus
        self.ipa = ipa
        self.size = size
        self.pa = pa

    def translate(self, ipa: int, size: int = 1) -> int:
        """Physical address; raises OutOfGuestRam."""
        if not (self.ipa <= ipa and ipa + size <= self.ipa + self.size):
            raise OutOfGuestRam(ipa, size)
        return ipa - self.ipa + self.pa

    async def read(self, ipa: int, size: int) -> bytes:
        """Bytes at `ipa`; raises OutOfGuestRam or BusFault."""
        return await self.bus.read_block(self.translate(ipa, size), size)

    def post(self, ipa: int, data: bytes) -> None:
        """Write bytes without waiting; raises OutOfGuestRam."""
        self.bus.post_block(self.translate(ipa, len(data)), data)


class Lines:
    """Reads of one batch of commands from a table, each line (default 4 KiB) fetched once."""

    def __init__(self, memory: GuestMemory, line: int = 4096) -> None:
        self._memory = memory
        self._line = line
        self._held: dict[int, bytes] = {}

    async def byte(self, ipa: int) -> int:
        """One byte; raises OutOfGuestRam."""
        base = ipa // self._line * self._line
        if base not in self._held:
            self._held[base] = await self._memory.read(base, self._line)
        return self._held[base][ipa - base]
