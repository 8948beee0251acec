"""The ITS driver: command queue (one CWRITER write, SYNCs, wrap, stall) and devices, decoded by what an ITS would read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import ModelError, ms, us
from nodes.hypervisor.host import queue
from nodes.hypervisor.host.access import together
from nodes.hypervisor.host.queue import SLOTS, ItsError
from tests.machine.host_rig import STREAM, Rig, names


def test_one_operation_one_cwriter_write_and_one_sync_per_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many commands an operation has, CWRITER is written once, and each SYNC and VSYNC target appears once."""
    rig = Rig().boot()
    its = rig.host.its[0]
    first = its.queue.issued
    writes: list[int] = []
    write = rig.its[0].bank.write

    def spy(offset: int, size: int, value: int, secure: bool = True) -> None:
        if offset == 0x88:
            writes.append(value)
        write(offset, size, value, secure)

    monkeypatch.setattr(rig.its[0].bank, "write", spy)
    commands = [("INVALL", {"icid": n}) for n in (0, 1, 0)]
    rig.call(its.run(commands, sync=[1, 0, 1, 0]))
    assert names(rig.commands(0, first)) == ["INVALL"] * 3 + ["SYNC"] * 2
    assert [c["rdbase"] for c in rig.commands(0, first)[3:]] == [1, 0]
    assert writes == [its.queue.issued * 32]


def test_cwriter_never_overtakes_the_commands() -> None:
    """With memory a hundred times slower than the ITS, the commands are in memory before CWRITER names them."""
    rig = Rig(memory_latency=us(4)).boot()
    rig.call(rig.host.its[0].run([("INVALL", {"icid": n % 3}) for n in range(5)], sync=[0, 1, 2]))
    assert [its.count["command_errors"] for its in rig.its] == [0, 0]
    assert rig.rds[1].net_log[-2:] == [("InvAll", ())] * 2


def test_run_returns_after_the_last_acknowledge() -> None:
    """`run` ends only when CREADR has passed the SYNC, that is when the Redistributor has acknowledged."""
    rig = Rig().boot()
    its, rd = rig.host.its[0], rig.rds[1]
    rd.held = []
    done: list[int] = []

    async def operation() -> None:
        await its.run([("INVALL", {"icid": 1})], sync=[1])
        done.append(rig.node.now)

    async def watch() -> None:
        rig.node.spawn(operation(), "operation")
        await rig.node.sleep(50_000_000)
        assert not done and its.queue.completed == its.queue.issued - 1

    rig.call(watch(), ms(1))
    rig.bench.call("redistributor1", rd.release(), rig.soon(ms(1)))
    assert done and its.queue.completed == its.queue.issued


@settings(max_examples=15)
@given(st.lists(st.integers(1, 900), min_size=3, max_size=6))
def test_the_queue_wraps(sizes: list[int]) -> None:
    """Over several turns of the 64 KiB ring every command is executed exactly once, in order, however runs lie on its end."""
    rig = Rig(pes=1).boot()
    its = rig.host.its[0]
    before = rig.rds[0].net_log[:]
    start = its.queue.issued
    for size in sizes:
        rig.call(its.run([("INVALL", {"icid": 0})] * size, sync=[0]))
    assert its.queue.issued - start == sum(sizes) + len(sizes)
    assert its.queue.completed == its.queue.issued
    assert rig.its[0].count["commands"] == its.queue.issued
    assert len(rig.rds[0].net_log) - len(before) == sum(sizes)
    assert rig.its[0].bank["GITS_CREADR"] == its.queue.issued % SLOTS * 32


def test_more_commands_than_slots() -> None:
    """An operation larger than the ring is queued in parts, never past CREADR."""
    rig = Rig(pes=1).boot()
    its = rig.host.its[0]
    start = its.queue.issued
    rig.call(its.run([("INVALL", {"icid": 0})] * (SLOTS + 100), sync=[0]))
    assert its.queue.completed == its.queue.issued == start + SLOTS + 101
    assert rig.its[0].count["commands"] == its.queue.issued


def test_operations_of_two_threads_do_not_mix() -> None:
    """Two operations at the same time keep their commands together, each with its own SYNC, and both finish."""
    rig = Rig().boot()
    its = rig.host.its[0]
    first = its.queue.issued

    async def both() -> None:
        runs = [its.run([("INVALL", {"icid": n})] * 3, sync=[n]) for n in (1, 2)]
        await together(rig.node, runs, "threads")

    rig.call(both())
    assert names(rig.commands(0, first)) == (["INVALL"] * 3 + ["SYNC"]) * 2


def test_a_stalled_queue_is_named() -> None:
    """An ITS that stalls at a wrong command gives an error that says which one and where it lies."""
    rig = Rig(its_params={"command_error": "stall"}).boot()
    its = rig.host.its[0]
    with pytest.raises(ItsError, match="stalled at command .* read 32 bytes at 0x"):
        rig.call(its.run([("INV", {"device_id": 5, "event_id": 0})], sync=[0]))


def test_a_queue_that_does_not_move_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If CREADR does not reach CWRITER within the bound, the error has the queue's numbers."""
    monkeypatch.setattr(queue, "POLL_LIMIT", 10**9)
    rig = Rig().boot()
    rig.its[0].bank.set_field("GITS_CTLR", "Enabled", 0)
    with pytest.raises(ModelError, match=r"queue timeout \(9 11\)"):
        rig.call(rig.host.its[0].run([("INVALL", {"icid": 0})], sync=[0]))


def test_device_life() -> None:
    """MAPD with a power-of-two ITT and no SYNC; MAPTI and INV of all events with one SYNC; DISCARD and MAPD V=0 at the end."""
    rig = Rig().boot()
    host, its = rig.host, rig.host.its[0]
    first = its.queue.issued
    device = its.device(STREAM, 6)
    rig.call(device.create())
    (mapd,) = rig.commands(0, first)
    assert (mapd.name, mapd["device_id"], mapd["size"], mapd["valid"]) == ("MAPD", STREAM, 2, 1)
    assert mapd["itt"] == device.itt and device.itt % 256 == 0

    first = its.queue.issued
    rig.call(device.map_events(range(6), host.cpus[1]))
    commands = rig.commands(0, first)
    assert names(commands) == ["MAPTI"] * 6 + ["INV"] * 6 + ["SYNC"]
    assert [(c["event_id"], c["pintid"], c["icid"]) for c in commands[:6]] == [(k, 8192 + k, 1) for k in range(6)]
    assert commands[-1]["rdbase"] == 1
    assert rig.memory.peek(host.lpis.prop, 8) == b"\xa3" * 6 + b"\xa2" * 2
    assert rig.rds[1].net_log[-6:] == [("InvLpi", (8192 + k,)) for k in range(6)]

    rig.call(device.trigger(3))
    assert rig.rds[1].net_log[-1] == ("SetLpi", (8195,))
    rig.call(device.move_event(3, host.cpus[2]))
    rig.call(device.trigger(3))
    assert rig.rds[2].net_log[-1] == ("SetLpi", (8195,))

    first = its.queue.issued
    rig.call(device.destroy())
    assert names(rig.commands(0, first)) == ["DISCARD"] * 6 + ["MAPD", "SYNC", "SYNC"]
    assert not its.devices and host.lpis.in_use == 0
    assert not [a for a in host.memory.in_use() if a.owner.startswith("itt")]
    assert rig.its[0].count["command_errors"] == 0


def test_a_device_is_known_once() -> None:
    """A second device with the same DeviceID, or one beyond GITS_TYPER.Devbits, is refused."""
    rig = Rig().boot()
    its = rig.host.its[0]
    its.device(STREAM, 8)
    with pytest.raises(ModelError, match="must be new"):
        its.device(STREAM, 8)
    with pytest.raises(ModelError, match="20 bits"):
        its.device(1 << 20, 8)
