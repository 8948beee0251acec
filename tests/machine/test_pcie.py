"""The root complex: type 1 functions, bus numbers, windows, and what goes where (PCI Express Base Specification 7.3, 7.5.1)."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import BusFault, MmioTarget, ModelError, Node, Request, ns
from cosim.testing import Bench
from nodes.pcie.hierarchy import Bus
from nodes.pcie.model import Pcie, root_ports

ECAM, MEMORY32, MEMORY64 = 0x10_1000_0000, 0x6000_0000, 0x40_0000_0000
HIERARCHY: list[dict[str, Any]] = [
    {"type": "host_bridge"},
    {"device": 1, "type": "root_port", "below": [{"type": "ahci"}]},
    {"device": 3, "type": "root_port", "below": [{"type": "upstream_port", "below": [
        {"device": 0, "type": "downstream_port", "below": [{"type": "exerciser"}, {"function": 7, "type": "exerciser"}]},
        {"device": 1, "type": "downstream_port", "link": 1}]}]},
    {"device": 4, "type": "root_port", "link": 0},
    {"device": 31, "type": "exerciser"},
]  # fmt: skip


class Below(Node):
    """What a link leads to: notes what it gets; refuses memory writes of 0xBAD."""

    ecam = MmioTarget()
    mmio = MmioTarget()

    def setup(self) -> None:
        self.got: list[tuple[str, int, int | None]] = []
        self.ecam.serve(lambda r: self._read("config", r), lambda r: self._write("config", r))
        self.mmio.serve(lambda r: self._read("memory", r), lambda r: self._write("memory", r))

    def _read(self, what: str, request: Request) -> int:
        self.got.append((what, request.addr, None))
        return 0x1122_3344

    def _write(self, what: str, request: Request) -> None:
        assert isinstance(request.data, int)
        self.got.append((what, request.addr, request.data))


class Rig:
    """A host above and two endpoints below; latency 100 ns to the root complex and 150 ns below it."""

    def __init__(self, hierarchy: list[dict[str, Any]] | None = None) -> None:
        self.bench = bench = Bench()
        self.pcie = bench.add("pcie", Pcie, {"hierarchy": HIERARCHY if hierarchy is None else hierarchy})
        self.below = [bench.add(f"below{n}", Below) for n in range(2)]
        self.host = bench.probe("host")
        memory = [(MEMORY32, 0x1000_0000, MEMORY32), (MEMORY64, 1 << 38, MEMORY64)]
        regions: list[Any] = [(ECAM, 0x1000_0000, "pcie.ecam")]
        regions += [(base, size, "pcie.mmio", offset) for base, size, offset in memory]
        bench.map("host.bus", regions, latency=ns(100))
        for n in range(2):
            low: list[Any] = [(0, 0x1000_0000, f"below{n}.ecam")]
            low += [(base, size, f"below{n}.mmio", offset) for base, size, offset in memory]
            bench.map(f"pcie.link{n}", low, latency=ns(150))
        bench.boot()

    def config(self, bus: int, device: int, function: int = 0, offset: int = 0, size: int = 4) -> int:
        address = ECAM + (bus << 20 | device << 15 | function << 12 | offset)
        value = self.bench.call("host", self.host.bus.read(address, size))
        assert isinstance(value, int)
        return value

    def set(self, bus: int, device: int, offset: int, value: int, size: int = 4, function: int = 0) -> None:
        address = ECAM + (bus << 20 | device << 15 | function << 12 | offset)
        self.bench.call("host", self.host.bus.write(address, value, size))

    def number(self) -> Rig:
        """Bus numbers depth first: 1; 2 with 3, 4, 5; 6."""
        self.set(0, 1, 0x18, 0x01_01_00)
        self.set(0, 3, 0x18, 0x05_02_00)
        self.set(2, 0, 0x18, 0x05_03_02)
        self.set(3, 0, 0x18, 0x04_04_03)
        self.set(3, 1, 0x18, 0x05_05_03)
        self.set(0, 4, 0x18, 0x06_06_00)
        return self

    def read(self, address: int) -> int:
        value = self.bench.call("host", self.host.bus.read32(address))
        assert isinstance(value, int)
        return value


def test_only_bus_0_is_there_at_reset() -> None:
    """Ports have bus numbers 0 and closed windows at reset: nothing below answers, and reads of nobody are ones."""
    r = Rig()
    assert r.config(0, 0) == 0x00BA_13B5 and r.config(0, 0, offset=8) == 0x0600_0001
    assert r.config(0, 4) == 0x0DEF_13B5 and r.config(0, 4, offset=0xE, size=1) == 1
    assert [r.config(0, 2), r.config(1, 0), r.config(6, 0)] == [0xFFFF_FFFF] * 3
    r.set(0, 4, 4, 6, 2)
    with pytest.raises(BusFault, match="DECERR"):
        r.read(MEMORY64)
    assert r.below[0].got == []
    assert (r.pcie.count["unsupported_requests"], r.pcie.count["unclaimed_accesses"]) == (3, 1)


def test_configuration_requests_follow_bus_numbers() -> None:
    """Each bus is reached through the ports whose range has it; below a port there is device 0 only, below a link the endpoint."""
    r = Rig().number()
    assert r.config(1, 0) == 0xACED_0ABC
    assert [r.config(4, 0, f) for f in (0, 7, 1)] == [0xED01_13B5, 0xED01_13B5, 0xFFFF_FFFF]
    assert r.config(4, 0, offset=0xE, size=1) == 0x80 and r.config(1, 0, offset=0xE, size=1) == 0
    assert r.config(6, 0, 1, 0x10) == 0x1122_3344 == r.config(5, 0)
    r.set(6, 0, 4, 6, 2, function=1)
    assert r.below[0].got == [("config", 0x60_1010, None), ("config", 0x60_1004, 6)]
    assert r.below[1].got == [("config", 0x50_0000, None)]
    assert [r.config(6, 1), r.config(1, 1), r.config(7, 0)] == [0xFFFF_FFFF] * 3
    assert len(r.below[0].got) == 2


def test_memory_requests_follow_windows() -> None:
    """A request goes down where memory space is on and a window has all of it, and its completion comes back."""
    r = Rig().number()
    r.set(0, 4, 0x24, 0x0011_0001)  # prefetchable: MEMORY64 to + 2 MiB
    r.set(0, 4, 0x28, 0x40)
    r.set(0, 4, 0x2C, 0x40)
    with pytest.raises(BusFault):
        r.read(MEMORY64)
    r.set(0, 4, 4, 2, 2)
    assert r.read(MEMORY64 + 0x1F_FFFC) == 0x1122_3344
    assert r.config(0, 4, offset=0x24) == 0x0011_0001
    for outside in (MEMORY64 + 0x20_0000, MEMORY64 + (1 << 32)):
        with pytest.raises(BusFault, match="DECERR"):
            r.read(outside)
    r.set(0, 3, 0x20, 0x6000_6000)
    r.set(2, 0, 0x20, 0x6000_6000)
    r.set(3, 1, 0x20, 0x6000_6000)
    for bus, device in ((0, 3), (2, 0), (3, 1)):
        with pytest.raises(BusFault):
            r.read(MEMORY32)
        r.set(bus, device, 4, 2, 2)
    assert r.read(MEMORY32 + 0xF_FFFC) == 0x1122_3344
    assert [n.got[-1] for n in r.below] == [
        ("memory", MEMORY64 + 0x1F_FFFC, None),
        ("memory", MEMORY32 + 0xF_FFFC, None),
    ]


def test_posted_writes_stay_in_order_and_a_read_pushes_them() -> None:
    """Writes go down in the order of their arrival and a read after them comes after them; both links are travelled."""
    r = Rig().number()
    r.set(0, 4, 0x20, 0x6000_6000)
    r.set(0, 4, 4, 2, 2)
    start = r.bench.kernel.now if r.bench.kernel is not None else 0

    async def body() -> int:
        for n in range(5):
            r.host.bus.post32(MEMORY32 + 4 * n, n)
        await r.host.bus.read32(MEMORY32)
        return r.host.now

    assert r.bench.call("host", body()) - start == 2 * ns(250)
    assert [value for _, _, value in r.below[0].got] == [0, 1, 2, 3, 4, None]


def test_bars_of_configuration_only_endpoints() -> None:
    """BARs can be sized and placed; an access to one is refused and counted, as is one where memory space is off."""
    r = Rig()
    r.set(0, 31, 0x10, 0xFFFF_FFFF)
    assert r.config(0, 31, offset=0x10) == 0xFFFF_C00C
    r.set(0, 31, 0x10, 0)
    r.set(0, 31, 0x14, 0x40)
    with pytest.raises(BusFault, match="DECERR"):
        r.read(MEMORY64)
    r.set(0, 31, 4, 2, 2)
    with pytest.raises(BusFault, match="SLVERR"):
        r.read(MEMORY64 + 0x3FFC)
    with pytest.raises(BusFault, match="DECERR"):
        r.read(MEMORY64 + 0x4000)
    assert r.pcie.count["unmodelled_accesses"] == 1


def test_capabilities_of_ports() -> None:
    """Ports have the PCI Express capability of their type, and root and downstream ports ACS; bus 0 has integrated endpoints."""
    r = Rig().number()

    def port(bus: int, device: int) -> int:
        assert r.config(bus, device, offset=0x34, size=1) == 0x40
        return r.config(bus, device, offset=0x40) >> 20 & 0xF

    assert [port(0, 4), port(2, 0), port(3, 0), port(1, 0), port(0, 31)] == [4, 5, 6, 0, 9]
    assert [r.config(b, d, offset=0x100) & 0xFFFF for b, d in ((0, 4), (3, 0), (2, 0))] == [0x0D, 0x0D, 0]
    assert r.config(0, 0, offset=0x34, size=1) == 0


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([{"type": "router"}], "one of host_bridge"),
        ([{"type": "root_port"}], "either below or link"),
        ([{"type": "ahci", "link": 0}], "either below or link"),
        ([{"type": "ahci"}, {"type": "exerciser"}], "different numbers"),
        ([{"type": "root_port", "below": [{"device": 1, "type": "ahci"}]}], "device 0 only"),
        ([{"type": "ahci", "device": 32}], "device 0..31"),
        ([{"type": "ahci", "name": "a"}], "must have the keys"),
    ],
)
def test_hierarchies_that_are_not_allowed(entries: list[dict[str, Any]], why: str) -> None:
    """The parameter is checked, and the error says what must be."""
    with pytest.raises(ModelError, match=why):
        Bus(entries)


def test_links_are_used_once() -> None:
    """Two ports must not have the same link."""
    two = [{"device": n, "type": "root_port", "link": 0} for n in range(2)]
    with pytest.raises(ModelError, match="links of ports must be different"):
        Rig(two)


def test_odd_configuration_accesses_are_refused() -> None:
    """A configuration access is 1, 2 or 4 bytes and aligned."""
    r = Rig()
    for offset, size in ((2, 4), (0, 8)):
        with pytest.raises(BusFault, match="SLVERR"):
            r.config(0, 0, offset=offset, size=size)


def test_root_ports_in_any_number() -> None:
    """`ports` root ports stand at devices 1 and up, each with the link of its place; more than bus 0 has room for are refused."""
    assert list(Bus(root_ports(31)).links()) == list(range(31))
    assert sorted(Bus(root_ports(2)).functions) == [0, 1 << 3, 2 << 3]
    with pytest.raises(ModelError, match="ports must be in 0..31"):
        root_ports(32)
