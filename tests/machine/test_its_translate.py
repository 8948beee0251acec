"""Translation of MSIs and GITS_SGIR writes: who may send, order, drops, caches."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import Request, ns, us
from nodes.arch.its_commands import encode
from tests.machine.its_bench import (
    CTLR,
    DEV,
    DEV2,
    ITT,
    REGS,
    SGIR,
    ItsBench,
    mapc,
    mapd,
    mapti,
    sync,
    vmapp,
    vmapti,
    vsync,
)


def mapped() -> ItsBench:
    """DEV: event 1 is LPI 8200 on redistributor 1, event 2 vLPI 8195 of vPE 7 on redistributor 3."""
    bench = ItsBench().enable()
    bench.run(mapc(0, 1), vmapp(7, 3), mapd(), mapti(1, 8200, 0), vmapti(2, 8195, 7), sync(1), vsync(7))
    return bench


def cold() -> ItsBench:
    """The same with nothing cached."""
    bench = mapped()
    bench.write(CTLR, 0, 4)
    bench.write(CTLR, 1, 4)
    return bench


def test_physical_and_virtual_msi_are_counted() -> None:
    """An MSI becomes SetLpi or SetVlpi and counts as translated; INT does not count."""
    bench = mapped()
    assert bench.msi(DEV, 1) == [(1, "SetLpi", (8200,))]
    assert bench.msi(DEV, 2) == [(3, "SetVlpi", (7, 8195, 1023))]
    bench.run(encode("INT", device_id=DEV, event_id=1))
    assert bench.count["msi_translated"] == 2 and bench.count["msi_dropped"] == 0


def test_sgir() -> None:
    """GITS_SGIR takes vPEID from bits 47:32 and vINTID from bits 3:0, and goes to the vPE's home."""
    bench = mapped()
    bench.run(vmapp(0x12, 2))
    bench.write(SGIR, 0x0000_0012_0000_0001)
    assert bench.take() == [(2, "SetVsgi", (0x12, 1))]
    assert bench.sgir(9, 1) == []
    assert bench.count["sgir_writes"] == 2 and bench.count["sgir_dropped"] == 1
    assert bench.take_log("GITS_SGIR write dropped")[0]["why"] == "UNMAPPED_VPE"


@pytest.mark.parametrize(
    ("device", "event", "why"),
    [
        (1 << 20, 1, "DEVICE_OOR"),
        (DEV2, 1, "UNMAPPED_DEVICE"),
        (DEV, 32, "ID_OOR"),
        (DEV, 5, "UNMAPPED_INTERRUPT"),
        (DEV, 3, "UNMAPPED_COLLECTION"),
        (DEV, 4, "UNMAPPED_VPE"),
    ],
)
def test_dropped_msi(device: int, event: int, why: str) -> None:
    """An MSI that cannot be translated is dropped, counted and logged with the reason; the queue never stalls."""
    bench = mapped()
    bench.run(mapti(3, 8201, 5), vmapp(8, 1), vmapti(4, 8196, 8), encode("VMAPP", vpeid=8, alloc=1))
    assert bench.msi(device, event) == []
    assert bench.count["msi_dropped"] == 1 and bench.count["command_errors"] == 0
    assert bench.take_log("MSI dropped")[0] == {"device_id": f"{device:#x}", "event_id": f"{event:#x}", "why": why}


def test_nothing_is_translated_while_disabled() -> None:
    """With Enabled=0 MSIs and vSGIs are dropped and counted."""
    bench = mapped()
    bench.write(CTLR, 0, 4)
    assert bench.msi(DEV, 1) == bench.sgir(7, 1) == []
    assert bench.count["msi_dropped"] == bench.count["sgir_dropped"] == 1


@pytest.mark.parametrize("ids", [[[0, DEV - 1], [DEV + 1, 0xFFFF_FFFF]], []])
def test_a_link_delivers_its_own_devices_only(ids: list[list[int]]) -> None:
    """A DeviceID outside the ranges of the link that brought it is dropped, counted and logged, though it is mapped."""
    bench = mapped()
    bench.its.msi.peers[0].attributes["device_ids"] = ids
    assert bench.msi(DEV, 1) == []
    assert bench.count["msi_dropped"] == 1
    assert "smmu0" in bench.take_log("MSI dropped")[0]["why"]
    bench.its.msi.peers[0].attributes["device_ids"] = [[0, 1], [DEV, DEV]]
    assert bench.msi(DEV, 1) != []


def test_events_keep_their_order_over_misses() -> None:
    """MSIs and vSGIs that hit the cache do not overtake earlier ones that wait for memory."""
    bench = cold()
    arrived: list[tuple[int, Any]] = []
    for number, rd in enumerate(bench.rds):
        rd.respond = lambda peer, message, number=number: arrived.append((number, message.fields))

    async def host() -> None:
        for sgi in range(2):
            bench.host.bus.post(REGS + SGIR, 7 << 32 | sgi)

    bench.bench.spawn("host", host())
    bench.msis((DEV, 2), (DEV, 2), (DEV, 1), delay=ns(1), every=ns(50))
    assert arrived == [
        (3, (7, 0)),
        (3, (7, 1)),
        (3, (7, 8195, 1023)),
        (3, (7, 8195, 1023)),
        (1, (8200,)),
    ]


def test_many_misses_share_one_read() -> None:
    """MSIs of a cold device read each line of the tables once: device level 1 and 2, ITT, collections."""
    bench = cold()
    reads: list[int] = []
    serve = bench.memory.bus._read

    def spy(access: Request) -> bytes:
        reads.append(access.addr)
        assert serve is not None
        data = serve(access)
        assert isinstance(data, bytes)
        return data

    bench.memory.bus.serve(spy, bench.memory.bus._write)
    bench.msis(*[(DEV, 1)] * 20, every=ns(7))
    assert len(bench.take()) == 20
    assert len(reads) == len(set(reads)) == 4


def test_entry_changed_while_it_is_fetched() -> None:
    """A line that MAPD makes obsolete while it is fetched is not kept: no event of the old table is translated later."""
    for delay in range(0, 800, 50):
        bench = cold()
        bench.post_commands(mapd(itt=ITT + 0x1000), sync(1))
        bench.msis((DEV, 1), delay=ns(delay))
        bench.take()
        assert bench.msi(DEV, 1) == [], delay


def test_disable_while_an_event_waits() -> None:
    """An MSI that waits for memory when the ITS is disabled is dropped, and the ITS becomes quiescent."""
    bench = cold()

    async def disable() -> None:
        await bench.host.sleep(ns(60))
        await bench.host.bus.write32(REGS + CTLR, 0)

    bench.bench.spawn("host", disable())
    bench.msis((DEV, 1))
    assert bench.take() == [] and bench.count["msi_dropped"] == 1
    assert bench.read(CTLR, 4) == 1 << 31


def test_table_that_cannot_be_read_drops_the_event() -> None:
    """A bus error while translating drops that event, counted and logged; later events go on."""
    bench = cold()
    bench.write(CTLR, 0, 4)
    bench.baser(1, 0x7000_0000)
    bench.write(CTLR, 1, 4)
    bench.msis((DEV, 1), (DEV, 2))
    assert bench.take() == [(3, "SetVlpi", (7, 8195, 1023))]
    assert "0x70000000" in bench.take_log("MSI dropped")[0]["why"]


def test_messages_to_one_redistributor_keep_command_order() -> None:
    """INT, CLEAR, INV of one interrupt arrive in the order of the queue."""
    bench = mapped()
    event = {"device_id": DEV, "event_id": 1}
    names = ["INT", "CLEAR", "INT", "INV", "CLEAR"]
    sent = bench.run(*[encode(name, **event) for name in names])
    assert [name for _, name, _ in sent] == ["SetLpi", "ClearLpi", "SetLpi", "InvLpi", "ClearLpi"]


def test_slow_memory_delays_but_does_not_lose() -> None:
    """With memory 5 us away a burst of cold events of two devices is translated whole."""
    bench = ItsBench(memory_latency=us(5)).enable()
    bench.run(mapc(0, 1), mapd(), mapd(DEV2, 4, ITT + 0x1000), sync(1))
    bench.run(*[mapti(event, 8200 + event, 0) for event in range(8)])
    bench.run(*[mapti(event, 8300 + event, 0, DEV2) for event in range(8)])
    bench.write(CTLR, 0, 4)
    bench.write(CTLR, 1, 4)
    events = [(device, event) for event in range(8) for device in (DEV, DEV2)]
    bench.msis(*events, every=ns(100))
    assert bench.take() == [(1, "SetLpi", (8200 + event + 100 * (d == DEV2),)) for d, event in events]
    assert bench.count["msi_translated"] == 16
