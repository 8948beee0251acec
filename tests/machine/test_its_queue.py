"""The ITS's command queue: ring, order, bulk fetch, SYNC, errors that skip or stall."""

from __future__ import annotations

import pytest

from cosim.api import ns, us
from nodes.arch.its_commands import encode
from tests.machine.its_bench import (
    CBASER,
    CREADR,
    CTLR,
    CWRITER,
    DEV,
    QUEUE,
    REGS,
    SGIR,
    VALID,
    ItsBench,
    mapc,
    mapd,
    mapti,
    sync,
    vmapp,
    vsync,
)


def cold() -> ItsBench:
    """Event 1 of DEV is LPI 8200 of redistributor 1, and no cache knows it: the ITS was off in between."""
    bench = ItsBench().enable()
    bench.run(mapc(0, 1), mapd(), mapti(1, 8200, 0), sync(1))
    bench.write(CTLR, 0, 4)
    bench.write(CTLR, 1, 4)
    bench.take_syncs()
    return bench


def invall(icid: int) -> bytes:
    return encode("INVALL", icid=icid)


def test_wraps_at_the_ring_size() -> None:
    """A run of commands that crosses the end of a one-page ring is consumed whole, in order, more than once around."""
    bench = ItsBench().enable()
    bench.run(*[mapc(icid, icid) for icid in range(4)])
    expected = []
    for turn in range(5):
        icids = [(turn + i) % 4 for i in range(100)]
        assert bench.run(*map(invall, icids)) == [(icid, "InvAll", ()) for icid in icids]
        expected += icids
    assert bench.count["commands"] == 504
    assert bench.read(CREADR) == bench.read(CWRITER) == 504 * 32 % 4096


def test_fetch_is_in_bulk() -> None:
    """127 commands are fetched by one read of memory, 1,000 of a larger ring by one read per 4 KiB."""
    for pages, number, reads in ((1, 127, 1), (16, 1000, 8)):
        bench = ItsBench(queue_pages=pages).enable()
        seen: list[int] = []
        issue = bench.its.bus.issue

        def spy(address: int, size: int, *rest: object, seen: list[int] = seen, issue: object = issue) -> object:
            seen.append(size)
            return issue(address, size, *rest)  # type: ignore[operator]

        bench.its.bus.issue = spy  # type: ignore[assignment, method-assign]
        bench.run(*[sync(0)] * number)
        assert len(seen) == reads and sum(seen) == number * 32


def test_write_to_cwriter_completes_at_once() -> None:
    """The write is complete after the link's round trip, while the commands still wait for their acknowledges."""
    bench = ItsBench(auto=False).enable()
    target = bench.queue([sync(0)])

    async def body() -> int:
        start = bench.host.now
        await bench.host.bus.write(REGS + CWRITER, target)
        return bench.host.now - start

    assert bench.bench.call("host", body()) == ns(80)
    assert bench.read(CREADR) == 0


def test_commands_written_while_busy_are_picked_up() -> None:
    """A CWRITER write that comes while SYNC waits extends the run; CREADR advances per command."""
    bench = ItsBench(auto=False).enable()
    bench.run(mapc(0, 1), sync(1))
    assert bench.read(CREADR) == 0x20
    bench.run(invall(0), sync(1))
    assert bench.read(CREADR) == 0x20 and bench.take() == []
    bench.ack(*bench.take_syncs()[0])
    bench.bench.run()
    assert bench.take() == [(1, "InvAll", ())]
    assert bench.read(CREADR) == 0x60
    bench.ack(*bench.take_syncs()[0])
    assert bench.read(CREADR) == 0x80


def test_disabled_or_invalid_queue_does_nothing() -> None:
    """Commands are executed only with Enabled=1 and CBASER.Valid=1, and start when both hold."""
    bench = ItsBench().enable()
    bench.write(CTLR, 0, 4)
    bench.run(mapc(0, 1))
    assert bench.read(CREADR) == 0
    bench.write(CBASER, QUEUE)
    bench.write(CTLR, 1, 4)
    assert bench.read(CREADR) == 0
    bench.write(CTLR, 0, 4)
    bench.write(CBASER, VALID | QUEUE)
    bench.write(CTLR, 1, 4)
    assert bench.read(CREADR) == 0x20


def test_cbaser_resets_creadr_only() -> None:
    """A write to CBASER clears CREADR and leaves CWRITER."""
    bench = ItsBench().enable()
    bench.run(mapc(0, 1), mapc(1, 2))
    bench.write(CTLR, 0, 4)
    bench.write(CBASER, VALID | QUEUE)
    assert (bench.read(CREADR), bench.read(CWRITER)) == (0, 0x40)


def test_a_ring_made_smaller_than_cwriter() -> None:
    """When CBASER leaves CWRITER outside the ring nothing is executed until CWRITER is written."""
    bench = ItsBench(queue_pages=2).enable()
    bench.run(*[mapc(0, 1)] * 130)
    bench.write(CTLR, 0, 4)
    bench.write(CBASER, VALID | QUEUE)
    bench.write(CTLR, 1, 4)
    assert bench.read(CREADR) == 0 and bench.count["commands"] == 130
    bench.write(CWRITER, 0x40)
    assert bench.read(CREADR) == 0x40 and bench.count["commands"] == 132


def test_cwriter_beyond_the_ring() -> None:
    """An offset outside the ring is not taken, counted and logged."""
    bench = ItsBench().enable()
    bench.write(CWRITER, 0x1000)
    assert bench.read(CWRITER) == bench.read(CREADR) == 0
    assert bench.count["queue_errors"] == 1 and bench.take_log()[-1]["offset"] == "0x1000"


def test_sync_waits_for_the_redistributor() -> None:
    """SYNC goes to its redistributor behind the messages before it, and completes on the acknowledge only."""
    bench = ItsBench(auto=False).enable()
    assert bench.run(mapc(0, 2), invall(0), sync(2)) == [(2, "InvAll", ())]
    bench.bench.run(us(50))
    assert bench.read(CREADR) == 0x40
    ((rd, name, fields),) = bench.take_syncs()
    assert (rd, name) == (2, "Sync")
    bench.ack(rd, name, fields)
    assert bench.read(CREADR) == 0x60


def test_sync_waits_for_table_writes() -> None:
    """With a slow memory SYNC completes only when the entries written before are in memory."""
    bench = ItsBench(memory_latency=us(5)).enable()
    target = bench.queue([mapc(0, 1), sync(1)])

    async def body() -> bool:
        await bench.host.bus.write(REGS + CWRITER, target)
        while await bench.host.bus.read64(REGS + CREADR) != target:
            await bench.host.sleep(ns(100))
        return bool(bench.its.bus.outstanding)

    assert bench.bench.call("host", body()) is False
    # Fetch, a line of the collection table, then the write: three round trips.
    assert bench.its.now >= us(30)


def test_run_of_syncs_is_asked_together() -> None:
    """Neighbouring SYNCs and VSYNCs are all sent before the first is acknowledged; a command behind them waits for all."""
    bench = ItsBench(auto=False).enable()
    bench.run(mapc(0, 1), vmapp(7, 3), sync(0), sync(1), vsync(7), invall(0))
    syncs = bench.take_syncs()
    assert [(rd, name) for rd, name, _ in syncs] == [(0, "Sync"), (1, "Sync"), (3, "VSync")]
    assert syncs[2][2][1] == 7
    bench.ack(*syncs[2])
    bench.ack(*syncs[0])
    assert bench.read(CREADR) == 0x60
    assert bench.take() == []
    bench.ack(*syncs[1])
    bench.bench.run()
    assert bench.take() == [(1, "InvAll", ())]


def test_a_sync_never_passes_a_command() -> None:
    """A command between two SYNCs waits for the first and is followed by the second."""
    bench = ItsBench().enable()
    bench.run(mapc(0, 1))
    order = bench.watch(1)
    bench.run(invall(0), sync(1), sync(1), invall(0), sync(1), invall(0))
    assert order == ["InvAll", "Sync", "Sync", "InvAll", "Sync", "InvAll"]
    assert bench.count["commands"] == 7


def test_bad_sync_behind_a_good_one() -> None:
    """In a run of SYNCs a wrong one is an error of its own; the good ones around it complete."""
    bench = ItsBench().enable()
    bench.run(sync(0), sync(9), vsync(3), sync(1))
    assert [entry["syndrome"] for entry in bench.take_log("ITS command error")] == ["0x010502", "0x012512"]
    assert [(rd, name) for rd, name, _ in bench.take_syncs()] == [(0, "Sync"), (1, "Sync")]
    assert bench.count["commands"] == 4 and bench.read(CREADR) == bench.read(CWRITER)


def test_stall_and_retry() -> None:
    """With command_error "stall" CREADR stays at the bad command with Stalled=1; Retry executes it again."""
    bench = ItsBench(command_error="stall").enable()
    bench.run(mapc(0, 1), mapti(1, 8200, 0), invall(0))
    assert bench.read(CREADR) == 0x20 | 1
    assert bench.take() == [] and bench.count["command_errors"] == 1 and bench.count["commands"] == 1
    bench.write(CWRITER, 0x60)
    assert bench.read(CREADR) == 0x21, "a CWRITER write without Retry does not resume"
    bench.memory.poke(QUEUE + 0x20, mapd())
    bench.write(CWRITER, 0x60 | 1)
    assert bench.read(CREADR) == 0x60 and bench.read(CWRITER) == 0x60
    assert bench.take() == [(1, "InvAll", ())]


def test_a_queue_that_cannot_be_read_stalls() -> None:
    """A bus error on the queue stalls it, counted and logged, until Retry; nothing is skipped."""
    bench = ItsBench().enable()
    bench.write(CTLR, 0, 4)
    bench.write(CBASER, VALID | 0x7000_0000)
    bench.write(CTLR, 1, 4)
    bench.write(CWRITER, 0x20)
    assert bench.read(CREADR) == 1
    assert bench.count["queue_errors"] == 1
    bench.write(CWRITER, 0x20 | 1)
    assert bench.read(CREADR) == 1 and bench.count["queue_errors"] == 2


def test_a_table_that_cannot_be_reached_is_a_command_error() -> None:
    """A bus error on a table fails the command with a private syndrome and is counted; the queue goes on."""
    bench = ItsBench().enable()
    bench.write(CTLR, 0, 4)
    bench.baser(1, 0x7000_0000)
    bench.write(CTLR, 1, 4)
    assert bench.error("MAPC", icid=0, rdbase=1, valid=1) == "0x010914"
    assert bench.count["table_faults"] == 1


def test_unknown_commands() -> None:
    """An opcode that nobody defines, and commands of a later GIC version, are counted command errors."""
    bench = ItsBench("3").enable()
    bench.run(bytes([0x77]) + bytes(31), vsync(0), encode("VMAPP", vpeid=1))
    assert [entry["syndrome"] for entry in bench.take_log("ITS command error")] == ["0x017715", "0x012515", "0x012915"]
    bench = ItsBench("4.0").enable()
    assert bench.error("VSGI", vpeid=0) == "0x012315"
    assert bench.error("INVDB", vpeid=0) == "0x012e15"


def test_unexpected_acknowledges() -> None:
    """An acknowledge with a tag that is not open, or from another redistributor, completes nothing and is counted."""
    bench = ItsBench(auto=False).enable()
    bench.run(sync(2))
    ((_, _, (tag,)),) = bench.take_syncs()
    bench.ack(1, "Sync", (tag,))
    bench.ack(2, "Sync", (tag + 1,))
    assert bench.read(CREADR) == 0
    assert bench.count["unexpected_acks"] == 2
    bench.ack(2, "Sync", (tag,))
    assert bench.read(CREADR) == 0x20


@pytest.mark.parametrize("delay", [0, ns(1), ns(30), ns(61), ns(119), ns(121), ns(200), ns(400)])
def test_msi_after_discard_and_sync_never_uses_the_old_mapping(delay: int) -> None:
    """However MSIs fall between DISCARD and its SYNC with cold caches, none reaches the redistributor after the SYNC."""
    bench = cold()
    order = bench.watch(1)
    bench.post_commands(encode("DISCARD", device_id=DEV, event_id=1), sync(1))
    bench.msis(*[(DEV, 1)] * 8, delay=delay, every=ns(35))
    assert order[-1] == "Sync" and order.count("ClearLpi") == 1
    assert "SetLpi" not in order[order.index("ClearLpi") :]
    assert bench.count["msi_translated"] + bench.count["msi_dropped"] == 8


def test_sync_covers_events_that_came_before() -> None:
    """An MSI that still waits for memory when SYNC is executed reaches the redistributor before the SYNC does."""
    bench = cold()
    order = bench.watch(1)
    bench.post_commands(sync(1))
    bench.msis((DEV, 1))
    assert order == ["SetLpi", "Sync"]


def test_sgir_write_completes_at_once() -> None:
    """A write to GITS_SGIR whose vPE is not cached completes after the link's round trip all the same."""
    bench = ItsBench(memory_latency=us(5)).enable()
    bench.run(vmapp(1, 2), vsync(1))
    bench.write(CTLR, 0, 4)
    bench.write(CTLR, 1, 4)

    async def body() -> int:
        start = bench.host.now
        await bench.host.bus.write(REGS + SGIR, 1 << 32 | 5)
        return bench.host.now - start

    bench.take()
    assert bench.bench.call("host", body()) == ns(80)
    assert bench.take() == [(2, "SetVsgi", (1, 5))]
