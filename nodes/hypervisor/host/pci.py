"""PCI enumeration by ECAM: functions, capabilities, BAR sizing and assignment, and what `lspci -vv` prints of them.

Firmware numbered the buses; the host looks at those that it names (the endpoint's). A configuration access is four bytes, as
on PCI Express; the reads of one step are in flight together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosim.api import ModelError
from nodes.arch.pcie import bdf, ecam_offset, parse_bdf, requester_id
from nodes.hypervisor.host.access import read_all

if TYPE_CHECKING:
    from nodes.hypervisor.host.host import Host

CONFIG_SIZE = 256
NO_DEVICE = 0xFFFF_FFFF
CMD_MEMORY, CMD_MASTER = 1 << 1, 1 << 2
CMD_INTX_DISABLE = 1 << 10
STATUS_CAP_LIST = 1 << 20
HEADER_MULTI = 0x80
CAP_MSIX = 0x11
CAP_PCIE = 0x10
CAP_PM = 0x01
MSIX_ENABLE, MSIX_MASKALL = 1 << 15, 1 << 14
BAR_64 = 0b100
BAR_PREFETCH = 1 << 3

DEFAULT_WINDOW = [0x40_0000_0000, 0x40_0000_0000]


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
    """One function: `rid`, its configuration space as read at enumeration, its BARs and its driver."""

    def __init__(self, pci: PciHost, rid: int, config: bytes) -> None:
        self.pci = pci
        self.rid = rid
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


class PciHost:
    """The PCI segment: `functions` by requester ID after `scan`, physical window of the 64-bit BARs."""

    def __init__(self, host: Host) -> None:
        params = host.node.params
        self.host = host
        self.ecam: int = params.get("ecam", 0x10_1000_0000)
        self.endpoint: int = parse_bdf(params.get("endpoint", "0000:08:00.1"))
        self._rid_to_stream: int = params.get("rid_to_stream", 0x3_0000)
        self._stream_to_device: int = params.get("stream_to_device", 0)
        self._window: list[int] = list(params.get("pci_mmio64", DEFAULT_WINDOW))
        self._next = self._window[0]
        self.functions: dict[int, PciFunction] = {}

    def stream_id(self, rid: int) -> int:
        """StreamID of a requester (IORT: root complex to SMMU)."""
        return self._rid_to_stream + rid

    def device_id(self, rid: int) -> int:
        """DeviceID of a requester (IORT: SMMU to ITS group)."""
        return self.stream_id(rid) + self._stream_to_device

    def function(self, name: str) -> PciFunction:
        """A function by its address, e.g. ``0000:08:00.1``.

        Raises:
            ModelError: enumeration did not find it.
        """
        found = self.functions.get(parse_bdf(name))
        if found is None:
            have = ", ".join(f.name for f in self.functions.values()) or "none"
            raise ModelError(f"PCI function must be one that enumeration found ({have}), not {name}")
        return found

    async def scan(self) -> None:
        """Find the functions of the endpoint's bus, read their configuration space, size and assign their BARs."""
        bus_number = self.endpoint >> 8
        rids = [requester_id(bus_number, device, 0) for device in range(32)]
        present = [rid for rid, ident in zip(rids, await self._idents(rids), strict=True) if ident != NO_DEVICE]
        headers = await read_all(self.host.bus, [(self.ecam + ecam_offset(rid, 0x0C), 4) for rid in present])
        multi = [rid for rid, word in zip(present, headers, strict=True) if word >> 16 & HEADER_MULTI]
        others = [rid | function for rid in multi for function in range(1, 8)]
        present += [rid for rid, ident in zip(others, await self._idents(others), strict=True) if ident != NO_DEVICE]
        for rid in sorted(present):
            await self._add(rid)
        for function in self.functions.values():
            self.record(function)

    async def _idents(self, rids: list[int]) -> list[int]:
        return await read_all(self.host.bus, [(self.ecam + ecam_offset(rid), 4) for rid in rids])

    async def _add(self, rid: int) -> None:
        accesses = [(self.ecam + ecam_offset(rid, offset), 4) for offset in range(0, CONFIG_SIZE, 4)]
        words = await read_all(self.host.bus, accesses)
        function = PciFunction(self, rid, b"".join(word.to_bytes(4, "little") for word in words))
        self.functions[rid] = function
        await self._size_bars(function)
        kind = "64bit pref" if any(bar.prefetchable for bar in function.bars.values()) else "64bit"
        printk = self.host.printk
        class_code = function.u32(8) >> 8
        printk(f"pci {function.name}: [{function.vendor:04x}:{function.device:04x}] type 00 class {class_code:#08x}")
        for bar in function.bars.values():
            end = bar.address + bar.size - 1
            printk(f"pci {function.name}: BAR {bar.index}: assigned [mem {bar.address:#x}-{end:#x} {kind}]")
        await function.command(CMD_MEMORY)

    async def _size_bars(self, function: PciFunction) -> None:
        bus = self.host.bus
        await function.command(0, CMD_MEMORY)
        registers = range(0x10, 0x28, 4)
        old = [function.u32(offset) for offset in registers]
        for offset in registers:
            bus.post32(function.address(offset), 0xFFFF_FFFF)
        masks = await read_all(bus, [(function.address(offset), 4) for offset in registers])
        index = 0
        while index < 6:
            low, flags = masks[index], old[index]
            wide = flags & 0b111 == BAR_64 and index < 5
            mask = (low & ~0xF) | (masks[index + 1] if wide else 0xFFFF_FFFF if low else 0) << 32
            if low & ~0xF or (wide and mask):
                size = (~mask & 0xFFFF_FFFF_FFFF_FFFF) + 1
                bar = Bar(index, size, flags)
                self._assign(function, bar)
            index += 2 if wide else 1
        await bus.dsb()

    def _assign(self, function: PciFunction, bar: Bar) -> None:
        address = -(-self._next // bar.size) * bar.size
        if address + bar.size > self._window[0] + self._window[1]:
            raise ModelError(f"BAR {bar.index} of {function.name} ({bar.size:#x} bytes) must fit the PCI MMIO window")
        if not bar.wide:
            raise ModelError(f"BAR {bar.index} of {function.name} must be 64-bit: the host has no 32-bit window")
        self._next = address + bar.size
        bar.address = address
        function.bars[bar.index] = bar
        offset = 0x10 + 4 * bar.index
        function.post32(offset, address & 0xFFFF_FFFF | bar.flags)
        function.post32(offset + 4, address >> 32)

    def record(self, function: PciFunction) -> None:
        """Tell the log what the host knows of a function; `cosim lspci` shows the last record of each."""
        self.host.node.log(
            "pci device",
            bdf=function.name,
            config=function.config.hex(),
            bars=[[bar.address, bar.size] for bar in function.bars.values()],
            driver=function.driver,
            iommu_group=self.host.vfio.group(function),
        )

    # -- lspci ---------------------------------------------------------------------------------------------------------

    def lspci(self, name: str) -> list[str]:
        """What ``lspci -vv -s NAME`` prints."""
        function = self.function(name)
        command = function.u16(4)

        def flag(text: str, on: bool) -> str:
            return text + ("+" if on else "-")

        lines = [
            f"{function.name} Class {function.u32(8) >> 16:04x}: Device {function.vendor:04x}:{function.device:04x} "
            f"(rev {function.config[8]:02x})",
            f"\tSubsystem: Device {function.u16(0x2C):04x}:{function.u16(0x2E):04x}",
            "\tControl: "
            + " ".join(
                [
                    flag("Mem", bool(command & CMD_MEMORY)),
                    flag("BusMaster", bool(command & CMD_MASTER)),
                    flag("DisINTx", bool(command & CMD_INTX_DISABLE)),
                ]
            ),
        ]
        for bar in function.bars.values():
            kind = "prefetchable" if bar.prefetchable else "non-prefetchable"
            off = "" if command & CMD_MEMORY else " [disabled]"
            lines.append(
                f"\tRegion {bar.index}: Memory at {bar.address:x} (64-bit, {kind}){off} [size={_size(bar.size)}]"
            )
        for ident, offset in function.capabilities():
            lines += self._capability(function, ident, offset)
        if function.driver:
            lines.append(f"\tKernel driver in use: {function.driver}")
        return lines

    @staticmethod
    def _capability(function: PciFunction, ident: int, offset: int) -> list[str]:
        if ident != CAP_MSIX:
            names = {CAP_PM: "Power Management", CAP_PCIE: "Express Endpoint"}
            return [f"\tCapabilities: [{offset:02x}] {names.get(ident, f'ID {ident:#04x}')}"]
        control = function.u16(offset + 2)
        on = "+" if control & MSIX_ENABLE else "-"
        masked = "+" if control & MSIX_MASKALL else "-"
        table, pba = function.msix_location(), function.msix_location(pba=True)
        return [
            f"\tCapabilities: [{offset:02x}] MSI-X: Enable{on} Count={function.msix_vectors} Masked{masked}",
            f"\t\tVector table: BAR={table[0]} offset={table[1]:08x}",
            f"\t\tPBA: BAR={pba[0]} offset={pba[1]:08x}",
        ]


def _size(size: int) -> str:
    for shift, unit in ((30, "G"), (20, "M"), (10, "K")):
        if size >> shift and not size & ((1 << shift) - 1):
            return f"{size >> shift}{unit}"
    return str(size)
