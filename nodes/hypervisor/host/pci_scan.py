"""PCI enumeration by ECAM: buses depth first, BARs sized, windows and BARs assigned, as Linux does with a hierarchy that firmware
has left alone.

A configuration access is at most four bytes, as on PCI Express; the reads of one step are in flight together. A segment whose
bus 0 is empty has its functions on the bus that firmware names (the endpoint's), directly in the host's windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cosim.api import ModelError
from nodes.arch.pcie import ecam_offset, requester_id
from nodes.hypervisor.host.access import read_all
from nodes.hypervisor.host.pci_function import (
    BAR_64,
    CMD_MASTER,
    CMD_MEMORY,
    CONFIG_SIZE,
    DOWNSTREAM_PORT,
    HEADER_MULTI,
    ROOT_PORT,
    Bar,
    PciFunction,
)

if TYPE_CHECKING:
    from nodes.hypervisor.host.pci import PciHost

NO_DEVICE = 0xFFFF_FFFF
BUS_NUMBERS, MEMORY_WINDOW, PREFETCH_WINDOW, PREFETCH_UPPER = 0x18, 0x20, 0x24, 0x28
BARS = 0x10
MEGABYTE = 1 << 20
CLOSED = 0x0000_FFF0
"""A window whose base lies above its limit."""
EXTENDED_SIZE = 16
"""Bytes that are read of an extended capability."""
LAST_BUS = 255


class Need(NamedTuple):
    """Space in a window: bytes, alignment (a power of two), and whose it is: a function's BAR, or what lies behind a bridge."""

    size: int
    align: int
    function: PciFunction
    bar: Bar | None = None


def pack(needs: Sequence[Need], base: int) -> tuple[list[tuple[Need, int]], int]:
    """Addresses from `base` upwards, the largest alignment first, and where they end."""
    placed, at = [], base
    for need in sorted(needs, key=lambda need: -need.align):
        at = -(-at // need.align) * need.align
        placed.append((need, at))
        at += need.size
    return placed, at


class Scan:
    """One enumeration of the segment of `host`; fills `host.functions`."""

    def __init__(self, host: PciHost) -> None:
        self.pci = host
        self.bus = host.host.bus
        self.printk = host.host.printk
        self._next_bus = 1

    async def run(self) -> None:
        """Everything, from an untouched hierarchy to memory space enabled."""
        self.printk("PCI host bridge to bus 0000:00")
        for base, size in (self.pci.window32, self.pci.window64):
            self.printk(f"pci_bus 0000:00: root bus resource [mem {base:#x}-{base + size - 1:#x} window]")
        self.printk(f"pci_bus 0000:00: root bus resource [bus 00-{LAST_BUS:02x}]")
        roots = await self._find(0, None)
        if not roots:
            roots = await self._find(self.pci.endpoint >> 8, None)
        await self._descend(roots)
        await self._size()
        for prefetchable, window in ((False, self.pci.window32), (True, self.pci.window64)):
            self._assign_root(roots, prefetchable, window)
        await self.bus.dsb()
        for function in self.pci.functions.values():
            await function.command(CMD_MEMORY | (CMD_MASTER if function.bridge else 0))

    # -- buses ---------------------------------------------------------------------------------------------------------

    async def _find(self, number: int, parent: PciFunction | None) -> list[PciFunction]:
        """Functions of a bus, read and added in order."""
        only_device_0 = parent is not None and parent.port_type in (ROOT_PORT, DOWNSTREAM_PORT)
        rids = [requester_id(number, device, 0) for device in range(1 if only_device_0 else 32)]
        present = [rid for rid, ident in zip(rids, await self._words(rids, 0), strict=True) if ident != NO_DEVICE]
        headers = await self._words(present, 0x0C)
        multi = [rid for rid, word in zip(present, headers, strict=True) if word >> 16 & HEADER_MULTI]
        others = [rid | function for rid in multi for function in range(1, 8)]
        present += [rid for rid, ident in zip(others, await self._words(others, 0), strict=True) if ident != NO_DEVICE]
        return await self._add(sorted(present), parent)

    async def _words(self, rids: Sequence[int], offset: int) -> list[int]:
        return await read_all(self.bus, [(self.pci.ecam + ecam_offset(rid, offset), 4) for rid in rids])

    async def _add(self, rids: Sequence[int], parent: PciFunction | None) -> list[PciFunction]:
        offsets = range(0, CONFIG_SIZE, 4)
        where = [(self.pci.ecam + ecam_offset(rid, offset), 4) for rid in rids for offset in offsets]
        words = await read_all(self.bus, where)
        per = len(offsets)
        found = []
        for n, rid in enumerate(rids):
            data = b"".join(word.to_bytes(4, "little") for word in words[n * per : (n + 1) * per])
            function = PciFunction(self.pci, rid, data, parent)
            self.pci.functions[rid] = function
            found.append(function)
            kind, code = function.config[0x0E] & 0x7F, function.u32(8) >> 8
            self.printk(
                f"pci {function.name}: [{function.vendor:04x}:{function.device:04x}] type {kind:02x} class {code:#08x}"
            )
        await self._extended([function for function in found if function.port_type is not None])
        return found

    async def _extended(self, functions: list[PciFunction]) -> None:
        """Follow the extended capability lists of all of them together."""
        at = dict.fromkeys((function.rid for function in functions), CONFIG_SIZE)
        while at:
            step = range(0, EXTENDED_SIZE, 4)
            where = [(self.pci.ecam + ecam_offset(rid, at[rid] + n), 4) for rid in at for n in step]
            words = await read_all(self.bus, where)
            following = {}
            for n, rid in enumerate(at):
                mine = words[n * len(step) : (n + 1) * len(step)]
                if mine[0] in (0, NO_DEVICE):
                    continue
                config = self.pci.functions[rid].config
                config.extend(bytes(max(at[rid] + EXTENDED_SIZE - len(config), 0)))
                config[at[rid] : at[rid] + EXTENDED_SIZE] = b"".join(word.to_bytes(4, "little") for word in mine)
                if mine[0] >> 20 > at[rid]:
                    following[rid] = mine[0] >> 20
            at = following

    async def _descend(self, functions: list[PciFunction]) -> None:
        """Number what is behind each bridge, depth first."""
        for bridge in functions:
            if not bridge.bridge:
                continue
            if self._next_bus > LAST_BUS:
                raise ModelError(f"the segment must have at most {LAST_BUS + 1} buses; there is none for {bridge.name}")
            secondary = self._next_bus
            self._next_bus += 1
            primary = bridge.rid >> 8
            bridge.post32(BUS_NUMBERS, primary | secondary << 8 | LAST_BUS << 16)
            await self._descend(await self._find(secondary, bridge))
            subordinate = self._next_bus - 1
            bridge.post32(BUS_NUMBERS, primary | secondary << 8 | subordinate << 16)
            buses = f"{secondary:02x}" if subordinate == secondary else f"{secondary:02x}-{subordinate:02x}"
            self.printk(f"pci {bridge.name}: PCI bridge to [bus {buses}]")

    def _children(self, bridge: PciFunction) -> list[PciFunction]:
        return [function for function in self.pci.functions.values() if function.parent is bridge]

    # -- BARs and windows ----------------------------------------------------------------------------------------------

    async def _size(self) -> None:
        """Size every BAR: all ones are written to all of them and read back, with memory space off."""
        registers = []
        for function in self.pci.functions.values():
            await function.command(0, CMD_MEMORY)
            end = BARS + 4 * (2 if function.bridge else 6)
            registers += [(function, offset) for offset in range(BARS, end, 4)]
        old = [function.u32(offset) for function, offset in registers]
        for function, offset in registers:
            self.bus.post32(function.address(offset), NO_DEVICE)
        masks = await read_all(self.bus, [(function.address(offset), 4) for function, offset in registers])
        skip = False
        for n, (function, offset) in enumerate(registers):
            if skip:
                skip = False
                continue
            low, flags = masks[n], old[n]
            skip = wide = flags & 0b111 == BAR_64
            mask = low & ~0xF | (masks[n + 1] if wide else NO_DEVICE if low else 0) << 32
            if mask and not flags & 1:  # no I/O space here
                bar = Bar((offset - BARS) // 4, (~mask & 0xFFFF_FFFF_FFFF_FFFF) + 1, flags)
                function.bars[bar.index] = bar

    def _needs(self, functions: Sequence[PciFunction], prefetchable: bool, *, root: bool) -> list[Need]:
        """What the functions of a bus need in one window. Behind a bridge only prefetchable BARs may lie above 4 GiB."""
        needs = []
        for function in functions:
            for bar in function.bars.values():
                if (bar.wide and (root or bar.prefetchable)) == prefetchable:
                    needs.append(Need(bar.size, bar.size, function, bar))
            if function.bridge:
                inside = self._needs(self._children(function), prefetchable, root=False)
                if inside:
                    size = -(-pack(inside, 0)[1] // MEGABYTE) * MEGABYTE
                    needs.append(Need(size, max(MEGABYTE, *(need.align for need in inside)), function))
        return needs

    def _assign_root(self, roots: Sequence[PciFunction], prefetchable: bool, window: list[int]) -> None:
        needs = self._needs(roots, prefetchable, root=True)
        placed, end = pack(needs, window[0])
        if end > window[0] + window[1]:
            have, what = f"{window[0]:#x} + {window[1]:#x}", "64-bit" if prefetchable else "32-bit"
            raise ModelError(f"BARs must fit the {what} PCI MMIO window ({have}); they end at {end:#x}")
        self._place(placed, prefetchable)
        for function in self.pci.functions.values():
            if function.bridge and prefetchable not in function.windows:
                self._open(function, prefetchable, 0, 0)

    def _place(self, placed: list[tuple[Need, int]], prefetchable: bool) -> None:
        for need, base in placed:
            if need.bar is not None:
                need.bar.address = base
                self._write_bar(need.function, need.bar)
                continue
            self._open(need.function, prefetchable, base, need.size)
            inside = self._needs(self._children(need.function), prefetchable, root=False)
            self._place(pack(inside, base)[0], prefetchable)

    def _write_bar(self, function: PciFunction, bar: Bar) -> None:
        offset = BARS + 4 * bar.index
        function.post32(offset, bar.address & NO_DEVICE | bar.flags)
        if bar.wide:
            function.post32(offset + 4, bar.address >> 32)
        kind = "64bit pref" if bar.wide and bar.prefetchable else "64bit" if bar.wide else ""
        where = f"[mem {bar.address:#x}-{bar.address + bar.size - 1:#x}{' ' + kind if kind else ''}]"
        self.printk(f"pci {function.name}: BAR {bar.index}: assigned {where}")

    def _open(self, bridge: PciFunction, prefetchable: bool, base: int, size: int) -> None:
        """Program a bridge's window; of size 0 it is closed."""
        last = base + size - 1
        word = CLOSED if not size else base >> 16 & 0xFFF0 | (last >> 16 & 0xFFF0) << 16
        if prefetchable:
            bridge.post32(PREFETCH_UPPER, base >> 32)
            bridge.post32(PREFETCH_UPPER + 4, last >> 32 if size else 0)
        bridge.post32(PREFETCH_WINDOW if prefetchable else MEMORY_WINDOW, word)
        if size:
            bridge.windows[prefetchable] = (base, size)
            kind = " 64bit pref" if prefetchable else ""
            self.printk(f"pci {bridge.name}:   bridge window [mem {base:#x}-{last:#x}{kind}]")
