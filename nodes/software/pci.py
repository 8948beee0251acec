"""PCI in a guest: find a function in kvmtool's ECAM, its BARs, and its MSI-X capability (PCIe base specification 7.5, 7.7)."""

from __future__ import annotations

from nodes.arch.cpu import Cpu
from nodes.arch.pcie import bdf, ecam_offset, requester_id

ECAM = 0x4000_0000
DEVICES = 32

ID, COMMAND, STATUS, BAR0, CAPABILITIES = 0x00, 0x04, 0x06, 0x10, 0x34
COMMAND_MEMORY_MASTER = 0b110
STATUS_CAPABILITIES = 1 << 4
CAP_MSIX = 0x11
MSIX_ENABLE, MSIX_MASK_ALL = 1 << 15, 1 << 14
ENTRY_SIZE = 16
ENTRY_MASKED = 1


class PciError(Exception):
    """The function isn't there or isn't as its driver needs it."""


class PciFunction:
    """Function 0 of a device on bus 0; `rid` is its requester ID, which is also its DeviceID at kvmtool's ITS."""

    def __init__(self, cpu: Cpu, rid: int) -> None:
        self.cpu = cpu
        self.rid = rid
        self._config = ECAM + ecam_offset(rid)
        self.bars: dict[int, int] = {}
        self._msix = 0
        self.table = 0
        self.vectors = 0

    @property
    def name(self) -> str:
        """``"0000:00:01.0"``."""
        return bdf(self.rid)

    async def read(self, register: int, size: int) -> int:
        """A configuration register."""
        return await self.cpu.load(self._config + register, size)

    async def write(self, register: int, value: int, size: int) -> None:
        """Write a configuration register."""
        await self.cpu.store(self._config + register, value, size)

    async def probe(self) -> None:
        """Read the BARs, which the VMM has assigned, and find MSI-X."""
        index = 0
        while index < 6:
            low = await self.read(BAR0 + 4 * index, 4)
            wide = low & 0b111 == 0b100
            high = await self.read(BAR0 + 4 * index + 4, 4) if wide else 0
            if low & ~0xF or high:
                self.bars[index] = high << 32 | low & ~0xF
            index += 2 if wide else 1
        await self._find_msix()

    async def _find_msix(self) -> None:
        if not await self.read(STATUS, 2) & STATUS_CAPABILITIES:
            raise PciError(f"{self.name} must have a capability list, with MSI-X in it")
        at = await self.read(CAPABILITIES, 1) & ~3
        for _ in range(48):
            if not at:
                break
            header = await self.read(at, 4)
            if header & 0xFF == CAP_MSIX:
                table = await self.read(at + 4, 4)
                self._msix, self.vectors = at, (header >> 16 & 0x7FF) + 1
                self.table = self.bar(table & 7) + (table & ~7)
                return
            at = header >> 8 & 0xFC
        raise PciError(f"{self.name} must have an MSI-X capability (0x11); its list has none")

    def bar(self, index: int) -> int:
        """Guest-physical address of a BAR. Raises PciError."""
        if index not in self.bars:
            raise PciError(f"{self.name} must have BAR{index}; the VMM assigned {sorted(self.bars)}")
        return self.bars[index]

    async def bar_size(self, index: int) -> int:
        """Bytes of a BAR below 4 GiB: what it reads after all-ones were written to it; its address is put back."""
        register = BAR0 + 4 * index
        address = await self.read(register, 4)
        await self.write(register, 0xFFFF_FFFF, 4)
        mask = await self.read(register, 4) & ~0xF
        await self.write(register, address, 4)
        return -mask & 0xFFFF_FFFF

    async def enable(self) -> None:
        """Switch memory space and bus mastering on."""
        await self.write(COMMAND, await self.read(COMMAND, 2) | COMMAND_MEMORY_MASTER, 2)

    async def enable_msix(self, address: int, vectors: int) -> None:
        """Vectors 0 to `vectors` - 1 write their number to `address`.

        The function stays masked until every entry has address, data and its unmask; the vectors' events are mapped before.
        """
        if vectors > self.vectors:
            raise PciError(f"{self.name} must have {vectors} MSI-X vectors, not {self.vectors}")
        await self.write(self._msix + 2, MSIX_ENABLE | MSIX_MASK_ALL, 2)
        entries = [self.table + ENTRY_SIZE * k for k in range(vectors)]
        for entry in entries:
            await self.cpu.store(entry + 12, ENTRY_MASKED, 4)
        for k, entry in enumerate(entries):
            await self.cpu.store(entry, address & 0xFFFF_FFFF, 4)
            await self.cpu.store(entry + 4, address >> 32, 4)
            await self.cpu.store(entry + 8, k, 4)
        for entry in entries:
            await self.cpu.store(entry + 12, 0, 4)
        await self.write(self._msix + 2, MSIX_ENABLE, 2)


async def find(cpu: Cpu, vendor: int, device: int) -> PciFunction:
    """The first function 0 on bus 0 with that identity. Raises PciError."""
    for number in range(DEVICES):
        function = PciFunction(cpu, requester_id(0, number, 0))
        if await function.read(ID, 4) == device << 16 | vendor:
            return function
    raise PciError(f"bus 0 must have a function {vendor:04x}:{device:04x}; none of its {DEVICES} devices is one")
