"""The PE node: interrupts that reach a guest or the host, and the virtual timer."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import ms, ns, us
from nodes.arch.cpu import Cpu
from nodes.arch.gic_stream import GIC_STREAM
from nodes.arch.trap import HCR_TWI, TRAP
from tests.machine.pe_bench import (
    HCR,
    ICH_ON,
    RAM_IPA,
    VLPI,
    PeBench,
    acker,
    acking_guest,
    idle,
    idle_guest,
    woken_guest,
)

# -- interrupts --------------------------------------------------------------------------------------------------------


def test_direct_interrupt_wakes_wfi_without_exit() -> None:
    """A vLPI offered by VSet is taken in an untrapped WFI, activated upwards and marked direct; nothing exits."""
    taken: list[Any] = []
    pe = PeBench(woken_guest(taken))
    pe.start()
    pe.gic(GIC_STREAM.VSet, 5, VLPI, 0xA0, 1)
    pe.run(us(1))
    assert taken == [VLPI, "woke"]
    assert pe.ups() == [("Activate", 5, VLPI)]
    assert pe.marks("ack") == [["vm.vcpu0", VLPI, "direct"]] and pe.exits() == []


def test_list_register_interrupt_is_marked_lr() -> None:
    """An interrupt in a list register is taken at entry, and its mark says lr."""
    taken: list[Any] = []
    pe = PeBench(acking_guest(taken))
    pe.start(ich=(*ICH_ON[:2], 0x50A0_0000_0000_0001, *ICH_ON[3:]))
    assert taken == [1] and pe.marks("ack") == [["vm.vcpu0", 1, "lr"]]


def test_masked_interrupt_completes_wfi_and_waits_for_unmask() -> None:
    """WFI returns for a masked interrupt; the handler runs before the next operation after irq_enable."""
    order: list[Any] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        acker(order)(cpu)
        cpu.irq_disable()
        await cpu.wfi()
        order.append("woke")
        cpu.irq_enable()
        await cpu.mrs("MPIDR_EL1")
        order.append("after")
        await idle(cpu)

    pe = PeBench(program)
    pe.start(hcr=HCR | HCR_TWI, ich=(*ICH_ON[:2], 0x50A0_0000_0000_0001, *ICH_ON[3:]))
    assert order == ["woke", 1, "after"]
    assert [e["reason"] for e in pe.exits()] == ["wfx"], "only the WFI with nothing pending traps"


def test_interrupt_does_not_stretch_a_delay() -> None:
    """An interrupt is taken inside a delay at once, and the delay ends when it would have ended without it."""
    times: list[tuple[str, int]] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        async def handler() -> None:
            intid = await cpu.mrs("ICC_IAR1_EL1")
            times.append(("irq", await cpu.mrs("CNTVCT_EL0")))
            await cpu.delay(us(1))
            await cpu.msr("ICC_EOIR1_EL1", intid)

        cpu.set_irq_handler(handler)
        cpu.irq_enable()
        await cpu.delay(us(10))
        times.append(("end", await cpu.mrs("CNTVCT_EL0")))
        await idle(cpu)

    pe = PeBench(program)
    pe.load()
    pe.enter()
    pe.gic(GIC_STREAM.VSet, 0, VLPI, 0xA0, 1, delay=us(4))
    pe.run(us(20))
    assert times == [("irq", 4005), ("end", 10300)]


def test_physical_interrupt_exits_even_when_masked() -> None:
    """A physical IRQ makes a guest in WFI exit, and the host is told its IRQ line right after."""
    pe = PeBench(idle_guest)
    host_on(pe)
    pe.start()
    pe.gic(GIC_STREAM.Set, 8300, 0xA0, 1)
    pe.run(us(1))
    (left,) = pe.exits()
    assert left["reason"] == "irq" and [m.fields for m in pe.irqs] == [(1,)]
    pe.to_pe(TRAP.SysregRead, 1, "ICC_IAR1_EL1", 2, False)
    pe.run(us(1))
    assert [(m.kind.name, m.fields) for m in pe.hyp.take()] == [("Irq", (0,)), ("SysregValue", (1, 8300))]


def host_on(pe: PeBench) -> None:
    """Firmware's idle priority (else a Non-secure write of PMR is ignored), then the host's PMR, EOImode 1, Group 1."""
    pe.to_pe(TRAP.SysregWrite, 0, "ICC_PMR_EL1", 0xFF, 3, True)
    for name, value in (("ICC_PMR_EL1", 0xF0), ("ICC_CTLR_EL1", 2), ("ICC_IGRPEN1_EL1", 1)):
        pe.to_pe(TRAP.SysregWrite, 0, name, value, 2, False)
    pe.run(us(1))
    pe.hyp.take()
    pe.rd.take()


def test_load_in_flight_completes_before_an_irq_exit() -> None:
    """A physical interrupt during a load exits after its completion, whose value is kept until Enter."""
    got: list[int] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        got.append(await cpu.load(RAM_IPA))
        await idle(cpu)

    pe = PeBench(program, delay=us(2))
    host_on(pe)
    pe.ram.data[0] = 42
    pe.start(ns(400))
    begun = pe.ram.now
    pe.gic(GIC_STREAM.Set, 8300, 0xA0, 1)
    pe.run(us(5))
    (left,) = pe.exits()
    assert left["reason"] == "irq" and left["time"] >= begun + us(2) and got == []
    pe.ram.data[0] = 1
    pe.to_pe(TRAP.SysregRead, 1, "ICC_IAR1_EL1", 2, False)
    pe.enter()
    pe.run(us(1))
    assert got == [42] and len(pe.ram.seen) == 1


def test_irq_exit_resumes_the_wait() -> None:
    """After an exit for a physical interrupt the WFI goes on, and a direct interrupt still wakes it."""
    taken: list[Any] = []
    pe = PeBench(woken_guest(taken))
    host_on(pe)
    pe.start()
    pe.gic(GIC_STREAM.Set, 8300, 0xA0, 1)
    pe.run(us(1))
    pe.to_pe(TRAP.SysregRead, 1, "ICC_IAR1_EL1", 2, False)
    pe.enter()
    pe.run(us(1))
    assert taken == []
    pe.gic(GIC_STREAM.VSet, 5, VLPI, 0xA0, 1)
    pe.run(us(1))
    assert taken == [VLPI, "woke"]


def test_irq_line_is_reported_in_host_context_only() -> None:
    """In host context each change of the IRQ line is sent once; while a guest runs none is, it exits instead."""
    pe = PeBench(idle_guest)
    host_on(pe)
    pe.gic(GIC_STREAM.Set, 8300, 0xA0, 1)
    pe.gic(GIC_STREAM.Set, 8301, 0x90, 1, delay=ns(1))
    pe.gic(GIC_STREAM.Clear, 8301, delay=ns(2))
    pe.run(us(1))
    assert [m.fields for m in pe.hyp.take()] == [(1,), (0,)]
    assert pe.ups() == [("Release", -1, 8300), ("Release", -1, 8301), ("ClearAck", 8301)]


def test_line_that_was_reported_is_reported_again_after_the_exit() -> None:
    """An interrupt that the host knew of but didn't take makes the guest exit at once, and the host hears of it again."""
    pe = PeBench(idle_guest)
    host_on(pe)
    pe.gic(GIC_STREAM.Set, 8300, 0xA0, 1)
    pe.run(us(1))
    assert [m.fields for m in pe.hyp.take()] == [(1,)]
    pe.start()
    assert [e["reason"] for e in pe.exits()] == ["irq"] and [m.fields for m in pe.irqs] == [(1,)]


def test_direct_offer_during_host_context_is_kept_for_entry() -> None:
    """A VSet that comes while the host runs is taken by the guest right after Enter."""
    taken: list[Any] = []
    pe = PeBench(acking_guest(taken))
    pe.gic(GIC_STREAM.VSet, 5, VLPI, 0xA0, 1)
    pe.run(us(1))
    pe.start()
    assert taken == [VLPI]


def test_maintenance_line_follows_the_guest() -> None:
    """PPI 25 rises when the list registers ask for maintenance, makes the guest exit by software's means, and falls at Exit."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.delay(us(1))
        await cpu.hvc(0)

    pe = PeBench(program)
    pe.start(us(3), ich=(1 | 1 << 1, *ICH_ON[1:]))  # UIE with no list register valid
    assert [u for u in pe.ups() if u[0] == "Level"] == [("Level", 25, 1), ("Level", 25, 0)]
    (left,) = pe.exits()
    assert left["ich"] == (3, *ICH_ON[1:]), "the image that goes out still has the guest's ICH_HCR_EL2"


def test_host_access_that_is_undefined_is_counted() -> None:
    """An MRS of a write-only register by the host is answered with 0, counted and logged."""
    pe = PeBench(idle_guest)
    pe.to_pe(TRAP.SysregRead, 7, "ICC_EOIR1_EL1", 2, False)
    pe.to_pe(TRAP.SysregWrite, 8, "CNTVCT_EL0", 0, 2, False)
    pe.run(us(1))
    assert [m.fields for m in pe.hyp.take()] == [(7, 0), (8,)]
    assert pe.pe.count["undefined_sysregs"] == 2


# -- timer -------------------------------------------------------------------------------------------------------------


def test_virtual_timer_makes_the_guest_exit_and_stays_high_for_the_host() -> None:
    """PPI 27 rises when CNTVCT reaches CNTV_CVAL; it is still high after the exit, so that the host can acknowledge it, and
    falls when the guest disables its timer."""
    taken: list[Any] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.msr("CNTV_CVAL_EL0", await cpu.mrs("CNTVCT_EL0") + 5000)
        await cpu.msr("CNTV_CTL_EL0", 1)
        await cpu.wfi()
        taken.append(await cpu.mrs("CNTV_CTL_EL0"))
        await cpu.msr("CNTV_CTL_EL0", 0)
        acker(taken)(cpu)
        await idle(cpu)

    pe = PeBench(program)
    host_on(pe)
    pe.start()
    pe.run(us(10))
    (rise,) = pe.rd.take()
    assert (rise.kind.name, rise.fields) == ("Level", (27, 1))
    pe.gic(GIC_STREAM.Set, 27, 0xA0, 1)
    pe.run(us(1))
    (left,) = pe.exits()
    assert left["reason"] == "irq" and left["cntv_ctl"] == 5 and rise.time - ns(5) == ns(left["cntv_cval"])
    assert pe.ups() == []
    pe.to_pe(TRAP.SysregRead, 1, "ICC_IAR1_EL1", 2, False)
    pe.run(us(1))
    assert pe.ups() == [("Activate", -1, 27)]
    pe.enter(ctl=5, cval=left["cntv_cval"], ich=(*ICH_ON[:2], 0x70A0_001B_0000_001B, *ICH_ON[3:]))
    pe.run(us(1))
    assert taken == [5, 27] and pe.ups() == [("Level", 27, 0), ("Deactivate", 27, 1)]


def test_timer_is_off_in_host_context() -> None:
    """A timer that had not expired at Exit doesn't disturb the host; it goes on with the values of the next Enter."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.msr("CNTV_CVAL_EL0", 5_000)
        await cpu.msr("CNTV_CTL_EL0", 1)
        await cpu.hvc(0)
        await idle(cpu)

    pe = PeBench(program)
    pe.start(us(20))
    assert pe.ups() == []
    (left,) = pe.exits()
    pe.enter(ctl=left["cntv_ctl"], cval=left["cntv_cval"], resume=(0, 0, 0, 0))
    pe.run(us(1))
    assert pe.ups() == [("Level", 27, 1)]
    pe.bench.run(ms(1))


@pytest.mark.parametrize("way", ["write", "drop"])
def test_host_can_silence_the_timer(way: str) -> None:
    """An expired timer's line falls when the host writes CNTV_CTL_EL0 or drops the context."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.msr("CNTV_CTL_EL0", 1)
        await cpu.hvc(0)

    pe = PeBench(program)
    pe.start()
    assert pe.ups() == [("Level", 27, 1)]
    if way == "write":
        pe.to_pe(TRAP.SysregWrite, 1, "CNTV_CTL_EL0", 0, 2, False)
    else:
        pe.to_pe(TRAP.DropContext, "vm.vcpu0")
    pe.run(us(1))
    assert pe.ups() == [("Level", 27, 0)]
