"""The host's allocator, LPIs, two-level tables and stage-2 page tables."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import MmioInitiator, ModelError, Node, ns
from cosim.testing import Bench
from nodes.hypervisor.host.lpi import HostLpis
from nodes.hypervisor.host.memory import Allocator, OutOfMemory
from nodes.hypervisor.host.pagetable import Stage2
from nodes.hypervisor.host.tables import HardwareTable
from nodes.memory.model import Memory

BASE, SIZE = 0x8000_0000, 0x100_0000


class Owner(Node):
    kind = "owner"
    bus = MmioInitiator()


def machine() -> tuple[Bench, Owner, Memory]:
    bench = Bench()
    node, memory = bench.add("owner", Owner), bench.add("memory", Memory)
    bench.map("owner.bus", [(BASE, SIZE, "memory.bus", BASE)], latency=ns(60))
    bench.run(0)
    return bench, node, memory


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 0x5000), st.sampled_from([1 << 12, 1 << 14, 1 << 16]), st.booleans()), max_size=30
    )
)
def test_allocations_never_overlap(requests: list[tuple[int, int, bool]]) -> None:
    """Allocations are aligned, disjoint, outside reserved ranges, and all memory is free again once they are freed."""
    bench, node, _ = machine()
    reserved = (BASE + 0x4000, 0x6000)
    memory = Allocator(node.bus, [(BASE, SIZE)], [reserved])
    before = memory.free_bytes

    async def use() -> None:
        live: list[tuple[int, int]] = []
        for size, align, free_first in requests:
            if free_first and live:
                memory.free(live.pop(0)[0])
            base = memory.alloc(size, align)
            assert base % align == 0
            for other, length in [*live, reserved]:
                assert base + size <= other or other + length <= base
            live.append((base, size))
        for base, _ in live:
            memory.free(base)

    bench.call("owner", use())
    assert memory.free_bytes == before and not memory.in_use()


def test_reused_memory_is_zero_and_fresh_memory_costs_nothing() -> None:
    """A freed region reads as zero when it is given out again; memory never used is not written."""
    bench, node, ram = machine()
    memory = Allocator(node.bus, [(BASE, SIZE)])

    async def use() -> int:
        base = memory.alloc(0x3000)
        assert node.bus.outstanding == 0
        await node.bus.write_block(base, b"\xff" * 0x3000)
        memory.free(base)
        again = memory.alloc(0x2000)
        assert again == base
        await node.bus.dsb()
        return again

    base = bench.call("owner", use())
    assert ram.peek(base, 0x3000) == bytes(0x2000) + b"\xff" * 0x1000


def test_allocator_errors() -> None:
    """What does not fit and what was not allocated are refused."""
    _, node, _ = machine()
    memory = Allocator(node.bus, [(BASE, SIZE)])
    with pytest.raises(OutOfMemory, match="do not fit"):
        memory.alloc(SIZE + 1)
    with pytest.raises(ModelError, match="0x1234"):
        memory.free(0x1234)


def test_lpis_are_contiguous_and_configured() -> None:
    """LPI runs do not overlap, freed ones are used again, and the configuration byte is 0xA3 when enabled."""
    bench, node, ram = machine()
    memory = Allocator(node.bus, [(BASE, SIZE)])

    async def use() -> HostLpis:
        lpis = HostLpis(node.bus, memory, 14)
        a, b = lpis.alloc(8), lpis.alloc(4)
        assert (a, b) == (8192, 8200)
        lpis.free(a, 8)
        assert lpis.alloc(9) == 8204 and lpis.alloc(8) == 8192
        lpis.configure_run(8192, 3, enable=True)
        lpis.configure(8193, enable=False)
        await node.bus.dsb()
        return lpis

    lpis = bench.call("owner", use())
    assert ram.peek(lpis.prop, 4) == b"\xa3\xa2\xa3\xa2"
    with pytest.raises(ModelError, match="contiguous"):
        lpis.alloc(8200)


def test_two_level_tables_announce_pages_once() -> None:
    """The level-1 entry of an ID is valid and names a page of its own; a second ID of the same page adds none."""
    bench, node, ram = machine()
    memory = Allocator(node.bus, [(BASE, SIZE)])

    async def use() -> HardwareTable:
        table = HardwareTable(node.bus, memory, 8, 0x1_0000, 20, indirect=True, owner="devices")
        used = len(memory.in_use())
        for ident in (0x30801, 0x30800, 0x10):
            table.ensure(ident)
        assert len(memory.in_use()) == used + 2
        await node.bus.dsb()
        return table

    table = bench.call("owner", use())
    entry = int.from_bytes(ram.peek(table.base + 8 * (0x30801 // 8192), 8), "little")
    assert entry >> 63 == 1 and entry & 0xFFFF == 0 and BASE <= entry & ~(1 << 63) < BASE + SIZE
    with pytest.raises(ValueError, match="must be below"):
        table.ensure(table.capacity)


def walk(ram: Memory, root: int, ipa: int) -> tuple[int, int] | None:
    """Reference stage-2 walk: (output address, descriptor) or None."""
    table = root
    for level, shift in enumerate((39, 30, 21, 12)):
        entry = int.from_bytes(ram.peek(table + 8 * (ipa >> shift & 511), 8), "little")
        if not entry & 1:
            return None
        if level < 3 and entry & 2:
            table = entry & 0xFFFF_FFFF_F000
            continue
        assert level == 3 or level > 0
        return entry & 0xFFFF_FFFF_F000 & ~((1 << shift) - 1) | ipa & ((1 << shift) - 1), entry
    raise AssertionError("a page descriptor ends the walk")


def test_guest_ram_takes_blocks_and_the_msi_window_one_page() -> None:
    """2 GiB map as two 1 GiB blocks with normal memory, the MSI page as one device page, and nothing else translates."""
    bench, node, ram = machine()
    memory = Allocator(node.bus, [(BASE, SIZE)])

    async def use() -> Stage2:
        tables = Stage2(node.bus, memory, "iommu")
        tables.map(0x8000_0000, 0x8000_0000, 0x80_8000_0000)
        tables.map(0x0800_0000, 0x1000, 0x3005_0000, device=True)
        tables.sync()
        await node.bus.dsb()
        return tables

    tables = bench.call("owner", use())
    assert len(memory.in_use()) == 4
    assert walk(ram, tables.root, 0x8123_4567) == (0x80_8123_4567, 0x80_8000_0000 | 0x7FD)
    assert walk(ram, tables.root, 0xFFFF_FFF8) == (0x80_FFFF_FFF8, 0x80_C000_0000 | 0x7FD)
    found = walk(ram, tables.root, 0x0800_0040)
    assert found is not None and found[0] == 0x3005_0040 and found[1] & 0b111111 == 0b000111
    assert walk(ram, tables.root, 0x7FFF_F000) is None and walk(ram, tables.root, 0x0800_1000) is None
    with pytest.raises(ModelError, match="twice"):
        tables.map(0x8000_0000, 0x1000, 0)
    tables.free()
    assert not memory.in_use()


@settings(max_examples=40)
@given(st.integers(0, 1 << 22), st.integers(1, 0x1200), st.integers(0, 1 << 22))
def test_any_mapping_translates_exactly(ipa: int, pages: int, pa: int) -> None:
    """Every page of a mapping translates to its own page whatever blocks were used; its neighbours do not."""
    bench, node, ram = machine()
    ipa, size, pa = ipa << 12, pages << 12, pa << 12

    async def use() -> Stage2:
        tables = Stage2(node.bus, Allocator(node.bus, [(BASE, SIZE)]), "iommu")
        tables.map(ipa, size, pa)
        tables.sync()
        await node.bus.dsb()
        return tables

    root = bench.call("owner", use()).root
    for page in {0, pages // 2, pages - 1}:
        found = walk(ram, root, ipa + (page << 12))
        assert found is not None and found[0] == pa + (page << 12)
    assert walk(ram, root, ipa + size) is None
    assert ipa == 0 or walk(ram, root, ipa - 0x1000) is None
