"""The cache in front of the ITS's tables: what it fetches, and what it does not keep."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import MmioInitiator, Node, Request, ns
from cosim.testing import Bench
from nodes.its.entries import INVALID_ITE, Cte, Dte, Ite, IteFormat, Vte
from nodes.its.tables import Lines, settle
from nodes.memory.model import Memory

RAM = 0x8000_0000


class Owner(Node):
    """A node with a cache of lines."""

    bus = MmioInitiator()

    def setup(self) -> None:
        self.lines = Lines(self, self.bus)


def make() -> tuple[Bench, Owner, Memory, list[tuple[int, int]]]:
    """A cache, its memory, and the (address, size) of each read that memory sees."""
    bench = Bench()
    owner, memory = bench.add("owner", Owner), bench.add("memory", Memory)
    bench.map("owner.bus", [(RAM, 0x1_0000, "memory.bus", RAM)], latency=ns(60))
    bench.boot()
    reads: list[tuple[int, int]] = []
    serve: Any = memory.bus._read

    def spy(access: Request) -> bytes:
        reads.append((access.addr, access.size))
        data = serve(access)
        assert isinstance(data, bytes)
        return data

    memory.bus.serve(spy, memory.bus._write)
    return bench, owner, memory, reads


def test_fetches_within_the_table_only() -> None:
    """A line is 256 aligned bytes, cut off where the table ends."""
    bench, owner, _, reads = make()

    async def body() -> None:
        await settle(lambda: owner.lines.read(RAM + 0x104, 4, RAM + 0x1000))
        await settle(lambda: owner.lines.read(RAM + 0x2008, 8, RAM + 0x2010))

    bench.call("owner", body())
    assert reads == [(RAM + 0x100, 256), (RAM + 0x2000, 16)]


def test_a_line_dropped_while_it_is_fetched_is_not_kept() -> None:
    """What was read before a drop is not used after it, neither by who waited nor later."""
    bench, owner, memory, reads = make()
    memory.poke(RAM, b"\x01")

    async def change() -> None:
        await owner.sleep(ns(90))  # memory has answered, the answer is on its way
        memory.poke(RAM, b"\x02")
        owner.lines.drop()

    async def body() -> list[int]:
        first = await settle(lambda: owner.lines.read(RAM, 8, RAM + 0x1000))
        return [first, await settle(lambda: owner.lines.read(RAM, 8, RAM + 0x1000))]

    bench.spawn("owner", change())
    assert bench.call("owner", body()) == [2, 2]
    assert len(reads) == 2


def test_fresh_reads_memory_again() -> None:
    """A fresh look-up sees what memory has now; the next plain one uses that line."""
    bench, owner, memory, reads = make()

    async def body() -> list[int]:
        seen = [await settle(lambda: owner.lines.read(RAM, 8, RAM + 0x1000))]
        memory.poke(RAM, b"\x05")
        await owner.sleep(ns(1))
        seen.append(await settle(lambda: owner.lines.read(RAM, 8, RAM + 0x1000)))
        seen.append(await settle(lambda: owner.lines.read(RAM, 8, RAM + 0x1000, fresh=True)))
        seen.append(await settle(lambda: owner.lines.read(RAM, 8, RAM + 0x1000)))
        return seen

    assert bench.call("owner", body()) == [0, 0, 5, 5]
    assert len(reads) == 2


@pytest.mark.parametrize("entry", [Dte(True, 31, 0xF_FFFF_FFFF_FF00), Dte(True, 0, 0x100), Dte(False, 0, 0)])
def test_device_entries_fit(entry: Dte) -> None:
    """A device's entry of 8 bytes holds every size and address; an invalid one is zero."""
    assert entry.pack() < 1 << 64 and Dte.unpack(entry.pack()) == entry
    assert bool(entry.pack()) == entry.valid


def test_collection_and_vpe_entries_fit() -> None:
    """A collection's entry has 2 bytes, a vPE's 8; both come back as they were."""
    for cte in (Cte(True, 0), Cte(True, 0x7FFF)):
        assert cte.pack() < 1 << 16 and Cte.unpack(cte.pack()) == cte
    for vte in (Vte(True, 13, 0), Vte(True, 31, 0xFFFF)):
        assert vte.pack() < 1 << 64 and Vte.unpack(vte.pack()) == vte


@pytest.mark.parametrize(
    ("form", "size"),
    [(IteFormat(16, 14, False), 4), (IteFormat(16, 16, False), 8), (IteFormat(23, 16, True), 8)],
)
def test_interrupt_entries_fit(form: IteFormat, size: int) -> None:
    """The extremes of every field fit the reported entry size and come back as they were."""
    top = (1 << form.id_bits) - 1
    assert form.size == size
    for physical in (True, False):
        entry = Ite(True, physical, top, (1 << form.target_bits) - 1, top if form.doorbells else 1023)
        assert form.pack(entry) < 1 << 8 * size and form.unpack(form.pack(entry)) == entry
    assert form.pack(INVALID_ITE) == 0 and form.unpack(0) == INVALID_ITE
