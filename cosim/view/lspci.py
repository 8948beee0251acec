"""PCI functions as lspci shows them, from the configuration space that the simulated host read.

Formats and names: PCI Express Base Specification 7.5 to 7.9; the layout of the text is that of pciutils' lspci.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

CLASSES = {
    0x0106: "SATA controller", 0x0108: "Non-Volatile memory controller", 0x0200: "Ethernet controller", 0x0600: "Host bridge",
    0x0604: "PCI bridge", 0x0880: "System peripheral", 0x1200: "Processing accelerators",
}  # fmt: skip
VENDORS = {0x13B5: "ARM", 0x1AF4: "Red Hat, Inc.", 0x8086: "Intel Corporation"}
CAPABILITIES = {
    0x01: "Power Management",
    0x05: "MSI",
    0x09: "Vendor Specific Information",
    0x10: "Express",
    0x11: "MSI-X",
}
EXTENDED = {
    0x01: "Advanced Error Reporting", 0x02: "Virtual Channel", 0x03: "Device Serial Number", 0x0D: "Access Control Services",
    0x0E: "Alternative Routing-ID Interpretation (ARI)", 0x0F: "Address Translation Service (ATS)",
    0x10: "Single Root I/O Virtualization (SR-IOV)", 0x13: "Page Request Interface (PRI)",
    0x1B: "Process Address Space ID (PASID)", 0x23: "Designated Vendor-Specific",
}  # fmt: skip
PORTS = {0: "Endpoint", 1: "Legacy Endpoint", 4: "Root Port", 5: "Upstream Port", 6: "Downstream Port",
         7: "PCI-Express to PCI/PCI-X Bridge", 9: "Root Complex Integrated Endpoint"}  # fmt: skip
SPEEDS = {1: "2.5GT/s", 2: "5GT/s", 3: "8GT/s", 4: "16GT/s", 5: "32GT/s", 6: "64GT/s"}
CONTROL = (
    "I/O",
    "Mem",
    "BusMaster",
    "SpecCycle",
    "MemWINV",
    "VGASnoop",
    "ParErr",
    "Stepping",
    "SERR",
    "FastB2B",
    "DisINTx",
)
UNITS = ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))
CAP_PCIE, CAP_MSI, CAP_MSIX, CAP_PM = 0x10, 0x05, 0x11, 0x01


class Region(NamedTuple):
    """A memory BAR with an address: its number, address, size in bytes (0: not known), 64-bit and prefetchable or not."""

    number: int
    address: int
    size: int
    wide: bool
    prefetchable: bool


class Function:
    """One function as the host's record tells: `bdf`, `config` (hex), `bars` [[address, size], ...], `driver`, `iommu_group`."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.name = str(record["bdf"])
        self.config = bytes.fromhex(record["config"])
        self.driver = str(record.get("driver") or "")
        self.group = record.get("iommu_group")
        self._sizes = {int(address): int(size) for address, size in record.get("bars", [])}

    def get(self, offset: int, size: int) -> int:
        """A little-endian field of the configuration space; 0 beyond what was recorded."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    @property
    def bridge(self) -> bool:
        """Whether it has a type 1 header."""
        return self.get(0x0E, 1) & 0x7F == 1

    def title(self) -> str:
        """``Unassigned class [ff00]: ARM Device ff80 (rev 0f)``."""
        code, vendor, device = self.get(0x0A, 2), self.get(0, 2), self.get(2, 2)
        kind = CLASSES.get(code) or (f"Unassigned class [{code:04x}]" if code >> 8 == 0xFF else f"Class {code:04x}")
        revision = self.get(0x08, 1)
        return f"{kind}: {_vendor(vendor, device)}" + (f" (rev {revision:02x})" if revision else "")

    def regions(self) -> list[Region]:
        """Its memory BARs."""
        found, offset, end = [], 0x10, 0x18 if self.bridge else 0x28
        while offset < end:
            low = self.get(offset, 4)
            wide = low & 0b111 == 0b100
            address = self.get(offset, 8 if wide else 4) & ~0xF
            if address and not low & 1:
                found.append(Region((offset - 0x10) // 4, address, self._sizes.get(address, 0), wide, bool(low & 8)))
            offset += 8 if wide else 4
        return found

    def capabilities(self) -> Iterator[tuple[int, int]]:
        """(ID, offset) along the capability list."""
        seen: set[int] = set()
        offset = self.get(0x34, 1) & ~3 if self.get(6, 2) & 0x10 else 0
        while offset >= 0x40 and offset not in seen:
            seen.add(offset)
            yield self.get(offset, 1), offset
            offset = self.get(offset + 1, 1) & ~3

    def extended(self) -> Iterator[tuple[int, int, int]]:
        """(ID, version, offset) along the extended capability list, where it was recorded."""
        seen: set[int] = set()
        offset = 0x100
        while 0x100 <= offset < len(self.config) and offset not in seen and self.get(offset, 4) not in (0, 0xFFFF_FFFF):
            seen.add(offset)
            header = self.get(offset, 4)
            yield header & 0xFFFF, header >> 16 & 0xF, offset
            offset = header >> 20


def functions(records: Sequence[Mapping[str, Any]]) -> list[Function]:
    """Functions in order of address; of several records of one function the last counts."""
    latest = {str(record["bdf"]): record for record in records}
    return [Function(latest[name]) for name in sorted(latest)]


def lines(function: Function, verbose: int, domain: bool) -> list[str]:
    """What lspci prints of a function: one line, more with `verbose` 1 or 2; with the segment number if `domain`."""
    name = function.name if domain else function.name.partition(":")[2]
    out = [f"{name} {function.title()}"]
    if verbose:
        if not function.bridge and function.get(0x2C, 4):
            out.append(f"\tSubsystem: {_vendor(function.get(0x2C, 2), function.get(0x2E, 2))}")
        out += _control(function) if verbose > 1 else [_flags(function)]
        if verbose > 1 and function.group is not None:
            out.append(f"\tIOMMU group: {function.group}")
        out += [_region(function, region, verbose) for region in function.regions()]
        out += _bridge(function) if function.bridge else []
        for ident, offset in function.capabilities():
            out += _capability(function, ident, offset, verbose)
        for ident, version, offset in function.extended():
            out.append(
                f"\tCapabilities: [{offset:x} v{version}] {EXTENDED.get(ident, f'Extended Capability ID {ident:#x}')}"
            )
        if function.driver:
            out.append(f"\tKernel driver in use: {function.driver}")
        out.append("")
    return out


def _vendor(vendor: int, device: int) -> str:
    known = VENDORS.get(vendor)
    return f"{known} Device {device:04x}" if known else f"Device {vendor:04x}:{device:04x}"


def _flag(name: str, on: int) -> str:
    return name + ("+" if on else "-")


def _control(function: Function) -> list[str]:
    command, status = function.get(4, 2), function.get(6, 2)
    out = ["\tControl: " + " ".join(_flag(name, command >> bit & 1) for bit, name in enumerate(CONTROL))]
    names = ((">TAbort", 11), ("<TAbort", 12), ("<MAbort", 13), (">SERR", 14), ("<PERR", 15), ("INTx", 3))
    head = " ".join(
        _flag(n, status >> b & 1) for n, b in (("Cap", 4), ("66MHz", 5), ("UDF", 6), ("FastB2B", 7), ("ParErr", 8))
    )
    speed = ("fast", "medium", "slow", "??")[status >> 9 & 3]
    out.append(f"\tStatus: {head} DEVSEL={speed} " + " ".join(_flag(name, status >> bit & 1) for name, bit in names))
    if command & 4:
        out.append(f"\tLatency: {function.get(0x0D, 1)}")
    return out


def _flags(function: Function) -> str:
    command = function.get(4, 2)
    parts = ["bus master"] if command & 4 else []
    parts += ["fast devsel"] + ([f"latency {function.get(0x0D, 1)}"] if command & 4 else [])
    if function.group is not None:
        parts.append(f"IOMMU group {function.group}")
    return "\tFlags: " + ", ".join(parts)


def _region(function: Function, region: Region, verbose: int) -> str:
    width = "64-bit" if region.wide else "32-bit"
    kind = "prefetchable" if region.prefetchable else "non-prefetchable"
    off = "" if function.get(4, 2) & 2 else " [disabled]"
    size = f" [size={_size(region.size)}]" if region.size else ""
    head = f"Region {region.number}: " if verbose > 1 else ""
    return f"\t{head}Memory at {region.address:x} ({width}, {kind}){off}{size}"


def _size(size: int) -> str:
    for scale, unit in UNITS:
        if size >= scale and not size % scale:
            return f"{size // scale}{unit}"
    return str(size)


def _bridge(function: Function) -> list[str]:
    primary, secondary, subordinate = (function.get(offset, 1) for offset in (0x18, 0x19, 0x1A))
    out = [f"\tBus: primary={primary:02x}, secondary={secondary:02x}, subordinate={subordinate:02x}, sec-latency=0"]
    base, limit = (function.get(0x20, 2) & 0xFFF0) << 16, (function.get(0x22, 2) & 0xFFF0) << 16 | 0xF_FFFF
    if base <= limit:
        out.append(f"\tMemory behind bridge: {base:08x}-{limit:08x} [size={_size(limit - base + 1)}] [32-bit]")
    base = (function.get(0x24, 2) & 0xFFF0) << 16 | function.get(0x28, 4) << 32
    limit = (function.get(0x26, 2) & 0xFFF0) << 16 | 0xF_FFFF | function.get(0x2C, 4) << 32
    if base <= limit:
        text = f"{base:016x}-{limit:016x} [size={_size(limit - base + 1)}] [64-bit]"
        out.append(f"\tPrefetchable memory behind bridge: {text}")
    return out


def _capability(function: Function, ident: int, offset: int, verbose: int) -> list[str]:
    head = f"\tCapabilities: [{offset:02x}] "
    flags = function.get(offset + 2, 2)
    if ident == CAP_MSIX:
        out = [
            f"{head}MSI-X: {_flag('Enable', flags >> 15)} Count={(flags & 0x7FF) + 1} {_flag('Masked', flags >> 14 & 1)}"
        ]
        if verbose > 1:
            for name, at in (("Vector table", offset + 4), ("PBA", offset + 8)):
                word = function.get(at, 4)
                out.append(f"\t\t{name}: BAR={word & 7} offset={word & ~7:08x}")
        return out
    if ident == CAP_PCIE:
        port = PORTS.get(flags >> 4 & 0xF, "Unknown type")
        slot = f" (Slot{'+' if flags >> 8 & 1 else '-'})" if flags >> 4 & 0xF in (4, 6) else ""
        version = f" (v{flags & 0xF})" if verbose > 1 else ""
        out = [f"{head}Express{version} {port}{slot}, IntMsgNum {flags >> 9 & 0x1F}"]
        return out + (_express(function, offset) if verbose > 1 else [])
    if ident == CAP_PM:
        return [f"{head}Power Management version {flags & 7}"]
    if ident == CAP_MSI:
        count, most = 1 << (flags >> 4 & 7), 1 << (flags >> 1 & 7)
        return [f"{head}MSI: {_flag('Enable', flags & 1)} Count={count}/{most} {_flag('Maskable', flags >> 8 & 1)} "
                f"{_flag('64bit', flags >> 7 & 1)}"]  # fmt: skip
    return [head + CAPABILITIES.get(ident, f"Capability ID {ident:#04x}")]


def _express(function: Function, offset: int) -> list[str]:
    capability, control = function.get(offset + 4, 4), function.get(offset + 8, 2)
    link, state = function.get(offset + 12, 4), function.get(offset + 18, 2)
    out = [
        f"\t\tDevCap:\tMaxPayload {128 << (capability & 7)} bytes, PhantFunc {capability >> 3 & 3}",
        f"\t\t\t{_flag('ExtTag', capability >> 5 & 1)} {_flag('RBE', capability >> 15 & 1)} "
        f"{_flag('FLReset', capability >> 28 & 1)}",
        f"\t\tDevCtl:\tCorrErr{'+' if control & 1 else '-'} NonFatalErr{'+' if control >> 1 & 1 else '-'} "
        f"FatalErr{'+' if control >> 2 & 1 else '-'} UnsupReq{'+' if control >> 3 & 1 else '-'}",
        f"\t\t\t{_flag('RlxdOrd', control >> 4 & 1)} {_flag('ExtTag', control >> 8 & 1)} {_flag('NoSnoop', control >> 11 & 1)}",
        f"\t\t\tMaxPayload {128 << (control >> 5 & 7)} bytes, MaxReadReq {128 << (control >> 12 & 7)} bytes",
    ]
    if link:
        port = link >> 24
        speed, width = SPEEDS.get(link & 0xF, "unknown"), link >> 4 & 0x3F
        now, lanes = SPEEDS.get(state & 0xF, "unknown"), state >> 4 & 0x3F
        out += [
            f"\t\tLnkCap:\tPort #{port}, Speed {speed}, Width x{width}",
            f"\t\tLnkSta:\tSpeed {now}, Width x{lanes}",
        ]
    return out
