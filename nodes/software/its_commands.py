"""A guest that uses every ITS command on interrupts of a device: order by priority, moves, INT, CLEAR, INV, DISCARD.

Like `arm/gic.flat its-trigger` and `its-migration` of kvm-unit-tests, with the test engine (smmute) as the device. How the
interrupts reach the guest, by list registers or as vLPIs, must not make a difference that it can see. CPU 0 has the driver;
CPU 1 is only a target. An interrupt is counted in the record of the CPU that took it; words have one writer each.

Subtests, each with PASS or FAIL: `order`: more interrupts pending than list registers, taken by priority; `int`: INT of a
disabled LPI waits for its enable; `clear`: what was cleared is never taken; `move`: MOVI with nothing pending; `movi pending`,
`movall pending`: what was pending goes along; `discard`: an unmapped event is gone, its INTID comes back with a new mapping.
"""

from __future__ import annotations

import struct
from typing import Any

from nodes.arch.cpu import BOOT_ENTRY, Cpu, vcpu_mpidr
from nodes.arch.its_commands import encode
from nodes.arch.lpi import config_address, config_byte
from nodes.software import gicv3, its, psci, smmute_driver
from nodes.software.report import Report
from nodes.software.smmute_driver import FIRST_LPI, FRAME_SIZE, MAX_VECTORS, Smmute

TARGET = 1
"""The other CPU; also the ICID of the collection that is mapped to it."""
TARGET_ENTRY = 1
TARGET_PENDING_TABLE = 0x8030_0000
MAILBOX = 0x8040_0000
"""CPU 1's words: ready, number of interrupts taken, INTID of the last."""
INPUT, OUTPUT = 0x8100_0000, 0x9100_0000
SIZE = 64
EVENTS = range(MAX_VECTORS)
SETTLE = 50_000_000
"""50 us: every interrupt that is on its way has arrived, whichever way it goes."""
LIMIT = 200


def priority(event: int) -> int:
    """The last event has the highest priority; KVM shows 5 bits of it."""
    return 0xF0 - 8 * (event + 1)


BY_PRIORITY = [FIRST_LPI + event for event in reversed(EVENTS)]


class _Target:
    """CPU 1: takes interrupts, and says how many."""

    def __init__(self, cpu: Cpu, vcpus: int) -> None:
        self.cpu = cpu
        self.vcpus = vcpus
        self.taken = 0
        self.last = 0

    async def run(self) -> None:
        cpu = self.cpu
        rd = await gicv3.find_redistributor(cpu, gicv3.layout(self.vcpus).gicr)
        await gicv3.switch_on_cpu_interface(cpu)
        await its.enable_lpis(cpu, rd, TARGET_PENDING_TABLE, configure=False)
        cpu.set_irq_handler(self._handle_irq)
        cpu.irq_enable()
        await self._tell()
        while True:
            await cpu.wfi()

    async def _tell(self) -> None:
        await self.cpu.store_block(MAILBOX, struct.pack("<3I", 1, self.taken, self.last))

    async def _handle_irq(self) -> None:
        intid = await self.cpu.mrs("ICC_IAR1_EL1") & 0xFF_FFFF
        if intid == gicv3.SPURIOUS:
            return
        await self.cpu.msr("ICC_EOIR1_EL1", intid)
        self.taken, self.last = self.taken + 1, intid
        await self._tell()


class _Tester(Smmute):
    """CPU 0: the device's driver, and the tests."""

    def __init__(self, cpu: Cpu, params: dict[str, Any]) -> None:
        super().__init__(cpu, params)
        self.report = Report(cpu)
        self.order: list[int] = []
        self.controller = self.its

    async def _handle_irq(self) -> None:
        intid = await self.cpu.mrs("ICC_IAR1_EL1") & 0xFF_FFFF
        if intid == gicv3.SPURIOUS:
            return
        self.order.append(intid)
        await self.cpu.msr("ICC_EOIR1_EL1", intid)

    # -- tools ---------------------------------------------------------------------------------------------------------

    @property
    def device_id(self) -> int:
        assert self.function is not None, "set_up comes first"
        return self.function.rid

    async def command(self, name: str, events: list[int] | range, **fields: int) -> None:
        """One ITS command for each event, and a SYNC to both CPUs."""
        run = [encode(name, device_id=self.device_id, event_id=event, **fields) for event in events]
        await self.controller.run(*run, encode("SYNC", rdbase=0), encode("SYNC", rdbase=TARGET))

    async def configure(self, event: int, enabled: bool) -> None:
        """Priority and enable of an LPI, and INV."""
        address = config_address(its.PROPERTY_TABLE, FIRST_LPI + event)
        await self.cpu.store(address, config_byte(priority(event), enabled), 1)
        await self.command("INV", [event])

    async def fire(self, events: list[int] | range) -> None:
        """Have the device send the vectors: one frame each; returns when all have been sent and had time to arrive."""
        assert self.function is not None, "set_up comes first"
        cpu, base = self.cpu, self.function.bar(0)
        frames = [base + event * FRAME_SIZE for event in events]
        for event, frame in zip(events, frames, strict=True):
            at = event * SIZE
            await self._program(frame, event, INPUT + at, OUTPUT + at, SIZE)
        for frame in frames:
            await cpu.store(frame + smmute_driver.CMD, smmute_driver.MEMCPY, 4)
        for frame in frames:
            for _ in range(LIMIT):
                if await cpu.load(frame + smmute_driver.CMD, 4) != smmute_driver.MEMCPY:
                    break
                await cpu.delay(1_000_000)
        await cpu.delay(SETTLE)

    async def take(self) -> list[int]:
        """Unmask interrupts for a while; the INTIDs that CPU 0 took, in order."""
        self.order = []
        self.cpu.irq_enable()
        await self.cpu.delay(SETTLE)
        self.cpu.irq_disable()
        return self.order

    async def other(self) -> int:
        """Interrupts that CPU 1 has taken."""
        ready, taken, _ = struct.unpack("<3I", await self.cpu.load_block(MAILBOX, 12))
        return int(taken) if ready else -1

    async def other_took(self, before: int, count: int) -> bool:
        """Whether CPU 1 takes exactly `count` more than `before`; it may have to be woken."""
        for _ in range(LIMIT):
            if await self.other() >= before + count:
                break
            await self.cpu.delay(SETTLE)
        await self.cpu.delay(SETTLE)
        return await self.other() == before + count

    # -- tests ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        cpu = self.cpu
        await cpu.store_block(MAILBOX, bytes(12))
        await self.set_up()
        cpu.irq_disable()
        for event in EVENTS:
            await self.configure(event, True)
        await psci.cpu_on(cpu, vcpu_mpidr(TARGET), TARGET_ENTRY)
        for _ in range(LIMIT):
            if await self.other() >= 0:
                break
            await cpu.delay(SETTLE)
        await self.controller.run(encode("MAPC", icid=TARGET, rdbase=TARGET, valid=1), encode("SYNC", rdbase=TARGET))
        report = self.report
        with report.prefix("its"):
            await self._order()
            await self._trigger()
            await self._clear()
            await self._move()
            await self._move_pending()
            await self._discard()
        await report.exit(await report.summary())

    async def _order(self) -> None:
        await self.fire(EVENTS)
        await self.report.check(await self.take() == BY_PRIORITY, "order: 8 pending interrupts come by their priority")
        await self.report.check(await self.take() == [], "order: each of them once")

    async def _trigger(self) -> None:
        await self.configure(3, False)
        await self.command("INT", [3, 3, 4])
        await self.report.check(await self.take() == [FIRST_LPI + 4], "int: a disabled LPI is not taken")
        await self.controller.run(encode("INVALL", icid=0), encode("SYNC", rdbase=0))
        await self.report.check(await self.take() == [], "int: nor after INVALL")
        await self.configure(3, True)
        await self.report.check(await self.take() == [FIRST_LPI + 3], "int: enabled, it is taken once")
        address = config_address(its.PROPERTY_TABLE, FIRST_LPI + 5)
        await self.cpu.store(address, config_byte(priority(5), False), 1)
        await self.controller.run(encode("INVALL", icid=0), encode("SYNC", rdbase=0))
        await self.command("INT", [5])
        await self.report.check(await self.take() == [], "int: INVALL makes a disable visible")
        await self.cpu.store(address, config_byte(priority(5), True), 1)
        await self.controller.run(encode("INVALL", icid=0), encode("SYNC", rdbase=0))
        await self.report.check(await self.take() == [FIRST_LPI + 5], "int: and an enable")

    async def _clear(self) -> None:
        await self.fire(EVENTS)
        await self.command("CLEAR", [1, 7])
        left = [intid for intid in BY_PRIORITY if intid - FIRST_LPI not in (1, 7)]
        await self.report.check(await self.take() == left, "clear: cleared interrupts are not taken, the others are")

    async def _move(self) -> None:
        before = await self.other()
        await self.command("MOVI", EVENTS, icid=TARGET)
        await self.fire(EVENTS)
        await self.report.check(await self.other_took(before, len(EVENTS)), "move: 8 interrupts at the other CPU")
        await self.report.check(await self.take() == [], "move: none here")
        await self.command("MOVI", EVENTS, icid=0)

    async def _move_pending(self) -> None:
        before = await self.other()
        await self.fire(EVENTS)
        await self.command("MOVI", [0, 2, 4, 6], icid=TARGET)
        await self.report.check(await self.other_took(before, 4), "movi pending: 4 interrupts at the other CPU")
        left = [intid for intid in BY_PRIORITY if intid % 2]
        await self.report.check(await self.take() == left, "movi pending: 4 here")
        await self.command("MOVI", [0, 2, 4, 6], icid=0)
        before = await self.other()
        await self.fire(EVENTS)
        await self.controller.run(encode("MOVALL", rdbase1=0, rdbase2=TARGET), encode("SYNC", rdbase=TARGET))
        await self.report.check(await self.other_took(before, 8), "movall pending: 8 interrupts at the other CPU")
        await self.report.check(await self.take() == [], "movall pending: none here")
        await self.command("MOVI", EVENTS, icid=TARGET)
        await self.command("MOVI", EVENTS, icid=0)

    async def _discard(self) -> None:
        await self.fire([2])
        await self.command("DISCARD", [2])
        await self.report.check(await self.take() == [], "discard: what was pending is gone")
        await self.command("MAPTI", [2], pintid=FIRST_LPI + 2, icid=0)
        await self.configure(2, True)
        await self.fire([2])
        await self.report.check(await self.take() == [FIRST_LPI + 2], "discard: mapped again, it is taken")


async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """Entry of both CPUs."""
    if params["entry"] == BOOT_ENTRY:
        await _Tester(cpu, params).run()
    else:
        await _Target(cpu, int(params.get("vcpus", 2))).run()
