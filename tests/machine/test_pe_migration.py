"""A vCPU's state on its way from PE to PE, and the EL2 physical timer by which the host takes PEs back."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import DECERR, ModelError, us
from nodes.arch.cpu import Cpu, ExternalAbort
from nodes.arch.trap import REASON_SYSREG, TRAP
from nodes.pe.context import Crash, ProgramContext
from tests.machine.pe_bench import HOLE_IPA, RAM_IPA, PeBench


async def counter(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """Counts in a local variable, and stores the count after each delay of 10 us; every fourth step traps to EL2."""
    count = params["start"]
    while True:
        await cpu.delay(us(10))
        count += 1
        await cpu.store(RAM_IPA, count)
        if count % 4 == 0:
            await cpu.msr("ICC_SGI1R_EL1", count << 24 & 0xF000000 | 1)


def state_of(bench: PeBench) -> tuple[Any, ...]:
    """What the PE gives away of vm.vcpu0."""
    bench.hyp.take()
    bench.to_pe(TRAP.SaveContext, "vm.vcpu0")
    bench.run(us(1))
    (message,) = [m for m in bench.hyp.take() if m.kind is TRAP.ContextState]
    return tuple(message.fields)


def stored(bench: PeBench) -> int:
    """The program's word in RAM."""
    return int.from_bytes(bench.ram.data[:8], "little")


def test_a_vcpu_goes_on_on_another_pe_where_it_was() -> None:
    """Saved in the middle of a trapped write and restored elsewhere, the program's variables, its delay and the operation that
    the trap left open are the same; the first PE has forgotten it."""
    first = PeBench(counter)
    first.load("args", start=1)
    first.enter()
    first.run(us(100))
    (left,) = first.exits()
    assert left["reason"] == REASON_SYSREG and stored(first) == 4
    state = state_of(first)
    assert state[:6] == ("vm.vcpu0", "program", "args", (("start", 1),), 0x8000_0000, 1)
    assert first.pe.vcpus == {}
    second = PeBench(counter)
    second.to_pe(TRAP.RestoreContext, *state)
    second.enter()
    second.run(us(25))
    assert stored(second) == 6
    second.run(us(25))
    assert stored(second) == 8
    assert [e["data"] for e in second.exits()] == [8 << 24 | 1]
    # And back, through a second state that contains the first one's journal.
    again = state_of(second)
    assert again[7][: len(state[7])] == state[7]
    first.to_pe(TRAP.RestoreContext, *again)
    first.enter()
    first.run(us(45))
    assert stored(first) == 12


async def poster(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """Posts a store that fails, traps to EL2, and finds out at its barrier."""
    await cpu.post(HOLE_IPA, 1)
    await cpu.msr("ICC_SGI1R_EL1", 1)
    try:
        await cpu.dsb()
    except ExternalAbort:
        await cpu.store(RAM_IPA, 7)
    await cpu.delay(us(1000))


def test_a_failed_posted_store_travels_with_the_vcpu() -> None:
    """The external abort of a store posted on one PE is taken at the dsb on the other."""
    first = PeBench(poster)
    first.start(us(10))
    state = state_of(first)
    assert state[6] == (DECERR, 0xDEAD_0000, 1)
    second = PeBench(poster)
    second.to_pe(TRAP.RestoreContext, *state)
    second.enter()
    second.run(us(100))
    assert stored(second) == 7


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (TRAP.SaveContext, ("vm.vcpu0",), "while it runs"),
        (TRAP.SaveContext, ("vm.vcpu9",), "no context"),
        (TRAP.RestoreContext, ("vm.vcpu0", "program", "", (), 0, 0, (), ()), "already"),
        (TRAP.RestoreContext, ("vm.vcpu1", "program", "", (("start", 1),), 0, 0, (), (("jump", 0),)), "journal"),
    ],
)
def test_impossible_moves_are_errors(kind: Any, fields: tuple[Any, ...], text: str) -> None:
    """A running or unknown vCPU, one that is there already, and a journal that leads nowhere stop the run with a reason."""
    bench = PeBench(counter)
    bench.load(start=1)
    bench.enter()
    bench.run(us(5))
    bench.to_pe(kind, *fields)
    with pytest.raises(ModelError, match=text):
        bench.run(us(5))


def test_a_crashed_context_cannot_be_replayed() -> None:
    """A program that raises on the way of its journal is a Crash, not another state."""

    async def fails(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.delay(1)
        raise ValueError("on the way")

    with pytest.raises(Crash, match="on the way"):
        ProgramContext.replay("fails", fails, "", {}, 0, [("delay", 1), ("result", None), ("result", None)])


# -- the EL2 physical timer ----------------------------------------------------------------------------------------------


def levels(bench: PeBench) -> list[tuple[int, int]]:
    """(time in ns, level) of the PE's line 26 since the last call."""
    found = [m for m in bench.rd.take() if m.kind.name == "Level"]
    return [(m.time // 1000, m.fields[1]) for m in found if m.fields[0] == 26]


def sysreg(bench: PeBench, name: str, value: int | None = None) -> None:
    if value is None:
        bench.to_pe(TRAP.SysregRead, 1, name, 2, 0)
    else:
        bench.to_pe(TRAP.SysregWrite, 1, name, value, 2, 0)


def test_the_hyp_timer_drives_ppi_26_at_its_compare_value() -> None:
    """CNTHP_CVAL at 5 us: line 26 rises then, and falls when the timer is disabled; CTL reads ISTATUS meanwhile."""
    bench = PeBench(counter)
    sysreg(bench, "CNTHP_CVAL_EL2", 5_000)
    sysreg(bench, "CNTHP_CTL_EL2", 1)
    bench.run(us(10))
    assert levels(bench) == [(5_005, 1)]
    bench.hyp.take()
    sysreg(bench, "CNTHP_CTL_EL2")
    bench.run(us(2))
    assert [m.fields for m in bench.hyp.take() if m.kind is TRAP.SysregValue] == [(1, 0b101)]
    sysreg(bench, "CNTHP_CTL_EL2", 0)
    bench.run(us(2))
    assert [level for _, level in levels(bench)] == [0]


def test_the_hyp_timer_runs_while_a_guest_does_and_is_not_the_guests() -> None:
    """It goes on through an entry; a guest that names its registers has an undefined instruction."""
    undefined: list[str] = []

    async def curious(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        try:
            await cpu.mrs("CNTHP_CTL_EL2")
        except Exception as error:
            undefined.append(type(error).__name__)
        while True:
            await cpu.delay(us(100))

    bench = PeBench(curious)
    sysreg(bench, "CNTHP_CVAL_EL2", 20_000)
    sysreg(bench, "CNTHP_CTL_EL2", 1)
    bench.load()
    bench.enter()
    bench.run(us(30))
    assert undefined == ["UndefinedInstruction"]
    assert levels(bench) == [(20_005, 1)]
    assert bench.exits() == []
