"""The host's enumeration of the real root complex: buses, windows, BARs, IOMMU groups, for any hierarchy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import ModelError, ns
from cosim.testing import Bench
from nodes.hypervisor.host.pci import PciHost
from nodes.pcie.config_space import FunctionConfig
from nodes.pcie.hierarchy import Bus
from nodes.pcie.model import Pcie
from tests.machine.host_rig import HostUnderTest

ECAM, WINDOW32, WINDOW64 = 0x10_1000_0000, [0x6000_0000, 0x1000_0000], [0x40_0000_0000, 0x40_0000_0000]

ENDPOINTS = st.sampled_from(["ahci", "exerciser", "smmute"])


@st.composite
def devices(draw: st.DrawFn, numbers: int, kinds: Any) -> list[dict[str, Any]]:
    """Endpoints on a bus of `numbers` devices, some of several functions."""
    found = []
    for device in draw(st.sets(st.integers(0, numbers - 1), max_size=3)):
        for function in {0} | draw(st.sets(st.integers(1, 7), max_size=2)):
            found.append({"device": device, "function": function, "type": draw(kinds)})
    return found


@st.composite
def hierarchies(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A host bridge, endpoints, root ports with endpoints or a switch below them, at most two switches deep."""
    entries: list[dict[str, Any]] = [{"type": "host_bridge"}]
    entries += [{**entry, "device": entry["device"] + 20} for entry in draw(devices(8, ENDPOINTS))]
    for device in draw(st.sets(st.integers(1, 6), max_size=3)):
        entries.append({"device": device, "type": "root_port", "below": draw(below(2))})
    return entries


@st.composite
def below(draw: st.DrawFn, depth: int) -> list[dict[str, Any]]:
    """What a root or downstream port leads to."""
    if not depth or draw(st.booleans()):
        return draw(devices(1, ENDPOINTS))
    ports = [
        {"device": device, "type": "downstream_port", "below": draw(below(depth - 1))}
        for device in sorted(draw(st.sets(st.integers(0, 5), min_size=1, max_size=3)))
    ]
    return [{"type": "upstream_port", "below": ports}]


class Machine:
    """A host and a root complex; `scan` enumerates."""

    def __init__(self, hierarchy: list[dict[str, Any]], **params: Any) -> None:
        self.bench = Bench()
        windows = {"pci_mmio32": WINDOW32, "pci_mmio64": WINDOW64, "ecam": ECAM}
        self.node = self.bench.add(
            "hypervisor", HostUnderTest, {"mpidrs": [0x8100_0000], "its": [], **windows, **params}
        )
        self.pcie = self.bench.add("pcie", Pcie, {"hierarchy": hierarchy})
        regions: list[Any] = [(ECAM, 0x1000_0000, "pcie.ecam")]
        regions += [(base, size, "pcie.mmio", base) for base, size in (WINDOW32, WINDOW64)]
        self.bench.map("hypervisor.bus", regions, latency=ns(100))
        self.bench.boot()

    @property
    def pci(self) -> PciHost:
        return self.node.host.pci

    def scan(self) -> Machine:
        self.bench.call("hypervisor", self.pci.scan(), 10**10)
        return self


def numbered(bus: Bus, number: int, free: list[int]) -> dict[int, FunctionConfig]:
    """Requester IDs as a depth-first numbering gives them."""
    found = {number << 8 | place: function.config for place, function in bus.functions.items()}
    for place in sorted(bus.functions):
        inside = bus.functions[place].below
        if inside is not None:
            mine = free[0]
            free[0] += 1
            found |= numbered(inside, mine, free)
    return found


@settings(max_examples=40, deadline=None)
@given(hierarchies())
def test_any_hierarchy_is_found_and_every_bar_is_reached(hierarchy: list[dict[str, Any]]) -> None:
    """Every function has its depth-first number; BARs are aligned, disjoint, inside all windows above, and routed to their owner;
    addresses around them are not."""
    machine = Machine(hierarchy).scan()
    root = machine.pcie.root
    want = numbered(root, 0, [1])
    functions = machine.pci.functions
    assert set(functions) == set(want)
    bars = []
    for rid, config in want.items():
        function = functions[rid]
        assert {bar.index: bar.size for bar in function.bars.values()} == {
            b.number: b.size for b in config.identity.bars
        }
        for bar in function.bars.values():
            assert bar.address % bar.size == 0
            window = WINDOW64 if bar.wide else WINDOW32
            assert window[0] <= bar.address and bar.address + bar.size <= sum(window)
            bars.append((bar.address, bar.address + bar.size))
            assert root.route(bar.address, 4) is config and root.route(bar.address + bar.size - 4, 4) is config
            parent = function.parent
            while parent is not None:
                base, size = parent.windows[bar.wide]
                assert base <= bar.address and bar.address + bar.size <= base + size
                parent = parent.parent
    bars.sort()
    assert all(end <= start for (_, end), (start, _) in zip(bars, bars[1:], strict=False))
    for _, end in bars:
        if not any(start <= end < stop for start, stop in bars):
            assert root.route(end, 4) is None


def test_groups_stop_where_acs_keeps_peers_apart() -> None:
    """Functions of one endpoint are one group; each endpoint behind a port of its own is another; ports are alone."""
    switch = [{"device": n, "type": "downstream_port", "below": [{"type": "exerciser"}]} for n in range(2)]
    hierarchy: list[dict[str, Any]] = [
        {"type": "host_bridge"},
        {"device": 1, "type": "root_port", "below": [{"type": "smmute"}, {"function": 1, "type": "smmute"}]},
        {"device": 2, "type": "root_port", "below": [{"type": "upstream_port", "below": switch}]},
    ]
    groups = {f.name: f.group for f in Machine(hierarchy).scan().pci.functions.values()}
    assert groups["0000:01:00.0"] == groups["0000:01:00.1"]
    assert len(set(groups.values())) == len(groups) - 1
    assert sorted(set(groups.values())) == list(range(len(groups) - 1))


def test_without_acs_everything_below_a_port_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A root port without ACS is in one group with all that is below it."""
    monkeypatch.setattr("nodes.pcie.config_space.CAP_ACS", 0x0E)
    hierarchy: list[dict[str, Any]] = [
        {"type": "host_bridge"},
        {"device": 1, "type": "root_port", "below": [{"type": "ahci"}]},
        {"device": 2, "type": "root_port", "below": [{"type": "ahci"}]},
    ]
    groups = {f.name: f.group for f in Machine(hierarchy).scan().pci.functions.values()}
    assert groups["0000:00:01.0"] == groups["0000:01:00.0"] != groups["0000:00:02.0"] == groups["0000:02:00.0"]
    assert groups["0000:00:00.0"] not in (groups["0000:00:01.0"], groups["0000:00:02.0"])


def test_a_window_that_is_too_small_is_said() -> None:
    """BARs that do not fit the host's window stop the boot with both sizes."""
    with pytest.raises(ModelError, match="64-bit PCI MMIO window"):
        Machine([{"type": "smmute"}], pci_mmio64=[0x40_0000_0000, 0x1_0000]).scan()


def test_records_have_extended_capabilities_and_drivers() -> None:
    """The record of a port has its ACS capability at 0x100 and its driver; that of an endpoint without ends at 256 bytes."""
    machine = Machine([{"type": "host_bridge"}, {"device": 1, "type": "root_port", "below": [{"type": "ahci"}]}]).scan()
    records = {r[4][1]["bdf"]: r[4][1] for r in machine.node.side if r[3] == 0 and r[4][0] == "pci device"}
    port, endpoint = (bytes.fromhex(records[name]["config"]) for name in ("0000:00:01.0", "0000:01:00.0"))
    assert int.from_bytes(port[0x100:0x102], "little") == 0x0D and len(port) > 256 == len(endpoint)
    assert records["0000:00:01.0"]["driver"] == "pcieport" and records["0000:01:00.0"]["driver"] == ""
    assert records["0000:01:00.0"]["bars"] == [[WINDOW32[0], 0x2000]]
    assert port[0x18:0x1B] == bytes([0, 1, 1])
