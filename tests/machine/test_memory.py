"""Sparse DRAM."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import MMIO, ns
from cosim.testing import Bench, Probe
from nodes.memory.model import PAGE, Memory

BASE, SIZE = 0x80_8000_0000, 0x1_0000


def make() -> tuple[Bench, Memory, Probe]:
    bench = Bench()
    memory = bench.add("memory", Memory)
    host = bench.probe("host")
    bench.map("host.bus", [(BASE, SIZE, "memory.bus", BASE)], latency=ns(60))
    bench.boot()
    return bench, memory, host


def test_reads_zero_at_reset_without_keeping_pages() -> None:
    """Memory never written reads as zero, in any size, and costs no page."""
    bench, memory, host = make()
    assert bench.call("host", host.bus.read(BASE + 0xFF8, 8)) == 0
    assert bench.call("host", host.bus.read_block(BASE, 4096)) == bytes(4096)
    assert memory.pages == {}


def test_addresses_are_absolute() -> None:
    """The page of physical address A is A / 4096, whatever the region's base."""
    bench, memory, host = make()
    bench.call("host", host.bus.write(BASE + 0x1004, 0xA1B2C3D4, 4))
    assert list(memory.pages) == [(BASE + 0x1000) // PAGE]
    assert memory.peek(BASE + 0x1004, 4) == bytes.fromhex("d4c3b2a1")


def test_bad_sizes_are_refused() -> None:
    """A message with size 0, above 4096, or with data of another length ends with SLVERR and changes nothing."""
    bench = Bench()
    memory, raw = bench.add("memory", Memory), bench.probe("raw")
    bench.link("raw.wires", "memory.bus", ns(10), both=True)

    async def send() -> None:
        for tag, (size, data) in enumerate([(0, b""), (4097, bytes(4097)), (3, b"ab"), (2, 0x1_0000)]):
            raw.send("wires", "memory", MMIO.Write, tag, BASE, size, data, 0)

    bench.call("raw", send())
    assert [message.fields[1] for message in raw.take()] == [2, 2, 2, 2]
    assert memory.pages == {} and memory.count["bus_errors"] == 4


def test_a_read_sees_all_of_a_write_or_nothing() -> None:
    """With writes and reads of 4 KiB in flight together, each read returns one write's bytes as a whole."""
    bench, _, host = make()

    async def body() -> list[bytes]:
        seen = []
        for value in range(1, 9):
            host.bus.post_block(BASE, bytes([value]) * 4096)
            seen.append(host.bus.issue(BASE, 4096, None, 0))
        await host.bus.dsb()
        return [(await read)[1] for read in seen]

    assert bench.call("host", body()) == [bytes([value]) * 4096 for value in range(1, 9)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, SIZE - 4096), st.binary(min_size=1, max_size=4096), st.booleans())))
def test_equals_one_flat_array(accesses: list[tuple[int, bytes, bool]]) -> None:
    """Reads and writes of any size and alignment, across pages, equal those of one bytearray."""
    memory = make()[1]
    flat = bytearray(SIZE)
    for offset, data, is_write in accesses:
        if is_write:
            flat[offset : offset + len(data)] = data
            memory.poke(BASE + offset, data)
        assert memory.peek(BASE + offset, len(data)) == flat[offset : offset + len(data)]
