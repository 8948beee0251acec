"""PCI functions of the host, their IOMMU groups, and what `lspci -vv` prints of them; pci_scan.py finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosim.api import ModelError
from nodes.arch.pcie import parse_bdf
from nodes.hypervisor.host.pci_function import (
    CAP_MSIX,
    CAP_PCIE,
    CAP_PM,
    CMD_INTX_DISABLE,
    CMD_MASTER,
    CMD_MEMORY,
    MSIX_ENABLE,
    MSIX_MASKALL,
    PciFunction,
)
from nodes.hypervisor.host.pci_scan import Scan

if TYPE_CHECKING:
    from nodes.hypervisor.host.host import Host

DEFAULT_WINDOW = [0x40_0000_0000, 0x40_0000_0000]
DEFAULT_WINDOW32 = [0x6000_0000, 0x1000_0000]
SMMUTE = (0x13B5, 0xFF80)


class PciHost:
    """The PCI segment: `functions` by requester ID after `scan`, in order of enumeration; (base, size) of the physical windows
    for 32-bit and for 64-bit prefetchable BARs."""

    def __init__(self, host: Host) -> None:
        params = host.node.params
        self.host = host
        self.ecam: int = params.get("ecam", 0x10_1000_0000)
        self.endpoint: int = parse_bdf(params.get("endpoint", "0000:08:00.1"))
        self._rid_to_stream: int = params.get("rid_to_stream", 0x3_0000)
        self._stream_to_device: int = params.get("stream_to_device", 0)
        self._has_smmute_driver = bool(params.get("host_smmute_driver", False))
        self.window32: list[int] = list(params.get("pci_mmio32", DEFAULT_WINDOW32))
        self.window64: list[int] = list(params.get("pci_mmio64", DEFAULT_WINDOW))
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
        """Find every function, give buses, windows and BARs, form IOMMU groups, and let the host's drivers probe."""
        await Scan(self).run()
        for function in self.functions.values():
            function.group = self._group(function)
            self.host.printk(f"pci {function.name}: Adding to iommu group {function.group}")
            function.driver = self.host_driver(function)
            if function.driver == "smmute":
                self.host.printk(f"smmute {function.name}: {function.bars[0].size >> 17}x2 pages of 512 frames")
            self.record(function)
        buses = len({function.rid >> 8 for function in self.functions.values()})
        self.host.node.log("PCI enumerated", functions=len(self.functions), buses=buses, see="cosim lspci")

    def host_driver(self, function: PciFunction) -> str:
        """The host's own driver of a function; "" if it has none."""
        if function.bridge and function.port_type is not None:
            return "pcieport"
        has = self._has_smmute_driver and (function.vendor, function.device) == SMMUTE
        return "smmute" if has else ""

    def _group(self, function: PciFunction) -> int:
        """IOMMU group, as Linux forms them (pci_device_group): up to where ACS keeps peers apart, and all functions of a device
        that don't; numbered in order of enumeration."""
        parent, representative = function.parent, function
        while parent is not None and not self._path_isolated(parent):
            if parent.group >= 0:
                return parent.group
            representative = parent
            parent = parent.parent
        known = [f for f in self.functions.values() if f.group >= 0]
        if not representative.isolated:
            same = [f.group for f in known if f.rid >> 3 == representative.rid >> 3 and not f.isolated]
            if same:
                return same[0]
        return max((f.group for f in known), default=-1) + 1

    @staticmethod
    def _path_isolated(bridge: PciFunction) -> bool:
        at: PciFunction | None = bridge
        while at is not None:
            if not at.isolated:
                return False
            at = at.parent
        return True

    def record(self, function: PciFunction) -> None:
        """Tell the log what the host knows of a function; `cosim lspci` shows the last record of each."""
        self.host.node.log(
            "pci device",
            level="debug",
            bdf=function.name,
            config=function.config.hex(),
            bars=[[bar.address, bar.size] for bar in function.bars.values()],
            driver=function.driver,
            iommu_group=function.group,
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
